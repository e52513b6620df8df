#!/usr/bin/env bash
# What the Dockerfile runs, and anybody without Docker can: a virtual environment with moextend that loads a model.
#
#   docker/install.sh torch VENV           torch and torchvision
#   docker/install.sh moextend VENV SOURCE this package, with the extra serve
#   docker/install.sh check VENV           an answer of the embedded model
#
# TORCH_INDEX: index of the wheels of torch and torchvision, such as https://download.pytorch.org/whl/cpu. Default: pip's.
set -euo pipefail

step=${1-} venv=${2-}
case $step in
    torch)
        python3 -m venv "$venv"
        # Both in one command, from one index: a torchvision that was built for another torch cannot be imported, and
        # then transformers, timm and open_clip cannot, either.
        "$venv/bin/pip" install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} 'torch>=2.9' torchvision
        ;;
    moextend)
        "$venv/bin/pip" install "$3[serve]"
        ;;
    check)
        "$venv/bin/pip" check
        "$venv/bin/moextend" generate tiny --prompt 'anna lives in'
        ;;
    *)
        echo "unknown step '$step': torch, moextend or check" >&2
        exit 2
        ;;
esac
