# Every command of `optimizer`, in one image; compose.yaml runs the whole fleet from it.
#
#   docker build --tag api-resource-optimizer .
#   docker run --rm --init -e OPTIMIZER_AMQP_URL=... -e OPTIMIZER_REDIS_URL=... api-resource-optimizer worker front

FROM python:3.13-slim AS build

# For an index of your own: pip reads them from its environment.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --only-binary=:all: --requirement=requirements.lock --dest=/wheels

# From here on pip knows only what has passed the lock's hashes. Of that it takes what the package asks for:
# what only its developers need stays behind.
ENV PIP_NO_INDEX=1 \
    PIP_FIND_LINKS=/wheels
COPY . ./
RUN python -m venv --without-pip /opt/venv \
    && pip --python=/opt/venv/bin/python install --quiet ".[all]"


FROM python:3.13-slim

COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OPTIMIZER_HEARTBEAT_FILE=/tmp/optimizer.heartbeat

# For the recorder's SQLite: a volume that is mounted here first takes over who owns it.
RUN install --directory --owner=10001 --group=10001 /data

# A fleet.toml that is mounted here counts.
WORKDIR /app
# As a number, so that a cluster can see that it is not root.
USER 10001:10001

# A worker, or whatever else beats: it is ready, and its event loop turns. Whether the fleet is well says `optimizer health`.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "console.heartbeat"]

# No shell in between: SIGTERM reaches the process, which drains.
ENTRYPOINT ["optimizer"]
CMD ["--help"]
