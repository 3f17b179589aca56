"""An OpenAI-compatible chat server as a process of its own, so that tests can kill it, restart it, and have several.

    python chat_server.py --port 8123 --delay 0.05 --log served.jsonl

The model "recommender" asks and never recommends; the model "user" gives up at its third turn; the model "reasoner" ranks the
first two candidates that it was told, beginning with one that its seed draws. What either says follows from
the messages and the seed alone. Each answer is one line of the log, written before it is sent.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class ChatServer:
    """The process: a fixed port on loopback, whatever becomes of it."""

    def __init__(self, log: Path, delay_s: float = 0.02, slots: int = 1000) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.log = log
        self._args = ["--port", self.port, "--delay", delay_s, "--slots", slots, "--log", log]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "ChatServer":
        """Start it (again) and return at once; see `wait`."""
        self._process = subprocess.Popen([sys.executable, __file__, *map(str, self._args)])
        return self

    def wait(self) -> "ChatServer":
        """Wait until it answers."""
        until = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/models", timeout=1).close()
                return self
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        """As `kill -9`: no connection is closed in order, nothing is finished."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def served(self) -> list[dict[str, object]]:
        """What it answered, over all its lives."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def turn(body: dict) -> str:
    if body["model"] == "reasoner":
        lines = [line for line in body["messages"][-1]["content"].splitlines() if line.startswith("- ")]
        titles = [line.removeprefix("- ").split(": ")[0] for line in lines]
        first = titles[body.get("seed", 0) % len(titles)]
        listed = [first, *(title for title in titles if title != first)][:2]
        ranking = "".join(f"<movie_title>{title}</movie_title>" for title in listed)
        return f"I see.\n<reasoning>\n<wants> genre <is> crime\n<ranking>{ranking}\n<because> so\n</reasoning>"
    own = [m for m in body["messages"] if m["role"] == "assistant"]
    say = f"say {len(own)} of {body.get('seed', 0) % 9973}"
    if body["model"] == "user":
        action = ("disclose-goal", "feedback", "give-up")[min(len(own), 2)]
    else:
        action = "greeting" if not own else "inquire"
    return f"<action><{action}></action><response>{say}</response>"


def serve() -> None:
    import uvicorn
    from fastapi import FastAPI, Request

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--delay", type=float)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    api = FastAPI()
    slots = asyncio.Semaphore(args.slots)
    log = os.open(args.log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    @api.get("/v1/models")
    async def models() -> dict:
        return {"data": [{"id": "user"}, {"id": "recommender"}]}

    @api.post("/v1/chat/completions")
    async def chat(request: Request) -> dict:
        body = await request.json()
        async with slots:
            await asyncio.sleep(args.delay)
        if "seed" in body:  # what asks which fields are taken has none
            os.write(log, json.dumps({"model": body["model"], "seed": body["seed"]}).encode() + b"\n")
        text = turn(body).removesuffix("</response>")
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    uvicorn.run(api, host="127.0.0.1", port=args.port, log_level="critical", lifespan="off", ws="none")


if __name__ == "__main__":
    serve()
