#!/bin/sh
# Inside the builder: the environment of an image from the wheelhouse, without an installer, and its bill of materials.
#     sh assemble.sh fedcredit-node deploy,postgres
set -eu
image=$1 extras=${2:?the extras of the image}
tools=/opt/tools/bin/python

python3 -m venv --without-pip /opt/fedcredit
"$tools" -m pip --isolated --python /opt/fedcredit/bin/python install --no-cache-dir --no-index \
  --disable-pip-version-check --find-links /wheels --constraint constraints.txt "fedcredit[$extras]"
# uv only serves Flower's installation of an app's dependencies, which is switched off: no installer stays in the image.
"$tools" -m pip --python /opt/fedcredit/bin/python uninstall --yes uv
find /opt/fedcredit/bin -name 'activate*' -delete -o -name 'Activate*' -delete

"$tools" configs/consortium/sbom.py --name "$image" --python /opt/fedcredit/bin/python \
  --dpkg-status /os/dpkg/status --copyrights /os/doc --out /sbom
