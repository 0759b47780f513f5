"""Clients of a recommendation server, for `serving_http.py`. They don't import torch, so that they start quickly."""

import asyncio
import json
import random
import subprocess
import sys
import time

N_ITEMS, TOP_K, LENGTHS = 25_000, 10, (5, 50)
BODIES = 16  # per client, written before the clock starts


def random_history(generator: random.Random) -> list[str]:
    return [f"item-{generator.randrange(N_ITEMS)}" for _ in range(generator.randint(*LENGTHS))]


class Connection:
    """A connection that stays open, which takes a client little time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()
        answer = await self.reader.readuntil(b"\r\n\r\n")
        lines = answer.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), await self.reader.readexactly(int(headers.get("content-length", 0)))

    def close(self) -> None:
        self.writer.close()


async def load(port: int, clients: int, seconds: float, seed: int) -> list[float]:
    """Returns the seconds of each answered request, without those of a warm-up of a fifth of `seconds`."""
    times: list[float] = []
    generator = random.Random(seed)
    bodies = [
        [json.dumps({"history": random_history(generator), "top_k": TOP_K}).encode() for _ in range(BODIES)]
        for _ in range(clients)
    ]
    begin = time.perf_counter() + seconds / 5
    end = begin + seconds

    async def client(own: list[bytes]) -> None:
        connection, sent = await Connection.to(port), 0
        while (start := time.perf_counter()) < end:
            status, answer = await connection.ask("POST", "/recommend", own[sent % BODIES])
            assert status == 200, answer
            sent += 1
            if start >= begin:
                times.append(time.perf_counter() - start)
        connection.close()

    await asyncio.gather(*map(client, bodies))
    return times


def client_process(port: int, clients: int, seconds: float, seed: int) -> list[float]:
    """Runs [`load`] in a process of its own, and returns its result."""
    command = [sys.executable, __file__, json.dumps([port, clients, seconds, seed])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(*json.loads(sys.argv[1])))))
