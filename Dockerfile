# syntax=docker/dockerfile:1
# One image for the API, the worker and the one-shot migration: `metagov` is its entry point.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/metagov
COPY requirements.lock requirements-dev.lock ./
RUN /opt/metagov/bin/pip install --require-hashes -r requirements.lock
# The build backend, pinned and hashed like everything else; it stays behind in this stage.
RUN awk '/^[a-z]/ { keep = /^(hatchling|packaging|pathspec|pluggy|trove-classifiers)==/ } keep' requirements-dev.lock > build.lock \
    && pip install --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY metagov_sdk metagov_sdk
COPY migrations migrations
COPY plugins plugins
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/metagov/bin/pip install --no-deps --no-index dist/*.whl

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home metagov && install --directory --owner metagov /data
COPY --from=build /opt/metagov /opt/metagov
ENV PATH=/opt/metagov/bin:$PATH PYTHONUNBUFFERED=1
USER metagov
WORKDIR /home/metagov
EXPOSE 8000
# The API's; compose.yaml gives the worker a check of its own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["metagov"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
