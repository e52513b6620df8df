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
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# torch changes rarely and is most of the image: a layer of its own, kept when the package changes.
COPY docker/install.sh /install.sh
RUN /install.sh torch /opt/moextend
COPY . /src
RUN /install.sh moextend /opt/moextend /src && /install.sh check /opt/moextend

FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 moextend \
    && mkdir -p /work /cache \
    && chown moextend:moextend /work /cache
COPY --from=build /opt/moextend /opt/moextend
COPY docker/healthy.py /opt/healthy.py
# Downloads and fingerprints of bases are kept in /cache; mount a volume there to keep them.
ENV PATH=/opt/moextend/bin:$PATH HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
# The image as it is used: its user, without what builds.
RUN ["moextend", "generate", "tiny", "--prompt", "anna lives in"]
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "/opt/healthy.py"]
ENTRYPOINT ["moextend"]
CMD ["--help"]
