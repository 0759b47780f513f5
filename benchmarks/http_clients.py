"""Clients of a server of recommendations, for `serving_http.py`: without torch, so that they cost little."""

import asyncio
import json
import random
import subprocess
import sys
import time

N_ITEMS, TOP_K, LENGTHS = 25_000, 10, (5, 50)
BODIES = 16  # of each client, written before the clock starts


def random_history(generator: random.Random) -> list[str]:
    return [f"item-{generator.randrange(N_ITEMS)}" for _ in range(generator.randint(*LENGTHS))]


class Connection:
    """One connection that stays open; costs a client little."""

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
    """Seconds that each answered request took; what began in the first fifth of the time isn't counted."""
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
    """[`load`] in a process of its own."""
    command = [sys.executable, __file__, json.dumps([port, clients, seconds, seed])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(*json.loads(sys.argv[1])))))
