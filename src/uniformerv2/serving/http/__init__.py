"""The HTTP service; needs the extra ``serve``."""

from uniformerv2.core.optional import check_installed

check_installed("fastapi", "uvicorn", "python_multipart", "prometheus_client", extra="serve")
