# syntax=docker/dockerfile:1

# moextend in a container, for a CPU (default) or for CUDA:
#
#   docker build -t moextend .
#   docker build -t moextend:cuda --build-arg BASE_IMAGE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 --build-arg TORCH=cu128 .
#   docker run --rm -v "$PWD:/work" moextend certify facts --base tiny
#
# A CUDA image needs the NVIDIA container toolkit on the host: docker run --gpus all ...

ARG BASE_IMAGE=ubuntu:24.04

FROM ${BASE_IMAGE} AS build
ARG TORCH=cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/moextend
ENV PATH=/opt/moextend/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# torch changes rarely and is most of the image: a layer of its own, kept when the package changes.
RUN pip install "torch>=2.9" --index-url "https://download.pytorch.org/whl/${TORCH}"
COPY . /src
RUN pip install "/src[serve]"

FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 moextend \
    && mkdir -p /work /cache \
    && chown moextend:moextend /work /cache
COPY --from=build /opt/moextend /opt/moextend
# Downloads and fingerprints of bases are kept in /cache; mount a volume there to keep them.
ENV PATH=/opt/moextend/bin:$PATH HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["moextend"]
CMD ["--help"]
