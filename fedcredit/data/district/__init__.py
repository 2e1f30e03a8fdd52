"""A made-up district: enterprises with latent health, and what each institution knows of them, as sources on disk."""

from fedcredit.data.district.build import DistrictReport, DistrictSettings, build_district, content_digests

__all__ = ["DistrictReport", "DistrictSettings", "build_district", "content_digests"]
