# Lengthwise for CPU:  docker build -t lengthwise .   then   docker run --rm -it --shm-size 2g lengthwise make demo
#
# torch: pass --build-arg LENGTHWISE_TORCH_INDEX=URL of an index with CPU builds, or pip takes the CUDA build.
# For NVIDIA GPUs base this on a CUDA runtime image with Python 3.11 or newer instead, set LENGTHWISE_DEVICE=cuda (there is
# no driver during the build, so it cannot be detected), and run with --gpus all --ipc=host.
FROM python:3.11-slim

# libnuma1: vLLM's CPU kernels link to it. g++: torch may compile kernels. Without git, manifests name no commit.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libnuma1 make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home lengthwise
USER lengthwise
WORKDIR /home/lengthwise/lengthwise

ARG LENGTHWISE_TORCH_INDEX=""
ENV LENGTHWISE_DEVICE=cpu PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

COPY --chown=lengthwise:lengthwise . .
RUN LENGTHWISE_TORCH_INDEX="$LENGTHWISE_TORCH_INDEX" scripts/setup.sh
ENV PATH=/home/lengthwise/lengthwise/.venv/bin:$PATH

# Results stay after the container if a volume is mounted here.
RUN mkdir outputs
VOLUME /home/lengthwise/lengthwise/outputs
CMD ["lengthwise", "--help"]
