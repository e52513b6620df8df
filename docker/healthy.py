"""HEALTHCHECK of the image: fails if the container runs `moextend serve` and its server does not answer.

usage: healthy.py [FILE]; FILE has the command line of the server as /proc has it. Default: that of the first process.
"""

import itertools
import sys
import urllib.request
from pathlib import Path

words = Path([*sys.argv[1:], "/proc/1/cmdline"][0]).read_bytes().decode(errors="replace").split("\0")
program = next((at for at, word in enumerate(words) if Path(word).name == "moextend"), len(words))
if words[program + 1 : program + 2] == ["serve"]:
    given = [after for word, after in itertools.pairwise(words) if word == "--port"]
    given += [word.removeprefix("--port=") for word in words if word.startswith("--port=")]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.open(f"http://127.0.0.1:{given[-1] if given else 8000}/health", timeout=5).close()
