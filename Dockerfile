# The two images of a consortium. Build from the root of the repository:
#     docker build --target node --tag fedcredit-node:0.1.0 .
#     docker build --target coordinator --tag fedcredit-coordinator:0.1.0 .
# A node that also takes part in averaging (torch, opacus, dp-accounting):
#     docker build --target node --build-arg NODE_EXTRAS=deploy,postgres,averaging --tag fedcredit-node-averaging:0.1.0 .

# Debian 12: its Python is the 3.11 that the project is tested on. A release pins the digest as well:
#   --build-arg BASE=docker.io/library/debian:bookworm-slim@sha256:…      (docs/containers.md says how to look it up)
ARG BASE=docker.io/library/debian:bookworm-slim
# What a node has beyond a simulation. Here, since only what stands before the first stage has the same value in all of them.
ARG NODE_EXTRAS=deploy,postgres

FROM ${BASE} AS os
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get upgrade --yes \
 && apt-get install --yes --no-install-recommends python3 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/* \
 && echo 'fedcredit:x:10001:10001:FedCredit:/home/fedcredit:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'fedcredit:x:10001:' >> /etc/group \
 && install --directory --owner=10001 --group=10001 --mode=0700 /home/fedcredit /var/lib/fedcredit \
 && install --directory --mode=0755 /data

# Wheels of your own, instead of those of the registry, come in as --build-context wheels=FOLDER.
FROM scratch AS wheels
COPY LICENSE /

FROM os AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/tools
WORKDIR /src
# The wheelhouse comes first: a change of the project's own code does not fetch it again. Wheels only: nothing compiles.
COPY configs/consortium/sbom.txt configs/consortium/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    /opt/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: \
      --requirement configs/consortium/sbom.txt
COPY pyproject.toml constraints.txt ./
COPY fedcredit/__init__.py fedcredit/
ARG NODE_EXTRAS
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=bind,from=wheels,source=/,target=/given \
    touch LICENSE README.md \
 && /opt/tools/bin/python -m pip wheel --no-cache-dir --disable-pip-version-check --only-binary=:all: \
      --find-links /given --constraint constraints.txt --wheel-dir /wheels ".[deploy,${NODE_EXTRAS}]" \
 && rm /wheels/fedcredit-*.whl
COPY LICENSE README.md ./
COPY fedcredit fedcredit
COPY nodes nodes
COPY coordinator coordinator
# What fedcredit/shipped links to: the wheel has the files themselves.
COPY configs/catalog configs/catalog
COPY configs/simulations configs/simulations
COPY configs/consortium/*.toml configs/consortium/
COPY configs/consortium/assemble.sh configs/consortium/sbom.py configs/consortium/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    /opt/tools/bin/python -m pip wheel --no-cache-dir --disable-pip-version-check --no-deps --wheel-dir /wheels .

# What both images say and how they run.
FROM os AS member
ARG REVISION="unknown"
ARG CREATED="1970-01-01T00:00:00Z"
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# Written at run time: the home, mounted on /var/lib/fedcredit, and /tmp. Loops are compiled once for each home, on the
# processor they run on, and kept in its cache/; XDG_CACHE_HOME serves commands that have no home.
ENV PATH=/opt/fedcredit/bin:/usr/sbin:/usr/bin \
    HOME=/home/fedcredit \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    FEDCREDIT_HOME=/var/lib/fedcredit \
    NUMBA_CACHE_DIR=/var/lib/fedcredit/cache/numba \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
WORKDIR /var/lib/fedcredit
HEALTHCHECK --interval=15s --timeout=6s --start-period=240s --retries=4 \
  CMD ["/opt/fedcredit/bin/python", "-I", "/opt/fedcredit/probe.py", "readyz"]

FROM member AS coordinator-os
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends nginx libnginx-mod-stream \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/* \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

# What the bill of materials reads is copied: buildah mounts a stage that it has in its cache without the stage's own layers.
FROM build AS coordinator-parts
COPY --from=coordinator-os /var/lib/dpkg /os/dpkg
COPY --from=coordinator-os /usr/share/doc /os/doc
RUN sh configs/consortium/assemble.sh fedcredit-coordinator deploy

FROM coordinator-os AS coordinator
LABEL org.opencontainers.image.title="fedcredit-coordinator" \
      org.opencontainers.image.description="Coordinator of a consortium: relays and adds what it cannot read"
COPY --from=coordinator-parts /opt/fedcredit /opt/fedcredit
COPY --from=coordinator-parts /sbom /usr/share/doc/fedcredit
COPY configs/consortium/probe.py /opt/fedcredit/probe.py
USER 10001:10001
# tini is process 1 and buries the processes that Flower starts and leaves behind.
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/fedcredit/bin/fedcredit-coordinator"]
CMD ["serve", "--home", "/var/lib/fedcredit"]

FROM member AS node-os
# Nothing in the image may run as another user than the one who starts it.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +

FROM build AS node-parts
ARG NODE_EXTRAS
COPY --from=node-os /var/lib/dpkg /os/dpkg
COPY --from=node-os /usr/share/doc /os/doc
RUN sh configs/consortium/assemble.sh fedcredit-node "${NODE_EXTRAS}"

FROM node-os AS node
LABEL org.opencontainers.image.title="fedcredit-node" \
      org.opencontainers.image.description="Node of an institution: keeps its rows, answers with encrypted sums"
COPY --from=node-parts /opt/fedcredit /opt/fedcredit
COPY --from=node-parts /sbom /usr/share/doc/fedcredit
COPY configs/consortium/probe.py /opt/fedcredit/probe.py
USER 10001:10001
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/fedcredit/bin/fedcredit-node"]
CMD ["serve", "--home", "/var/lib/fedcredit"]
