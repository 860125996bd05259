"""One end of an ICE session, by aioice.

Says who it is on a line of JSON, reads the same of the other end, connects, and sends back every
datagram that comes, until its input ends.

aioice_peer.py controlling|controlled SERVER TURN_USER TURN_PASSWORD
"""

import asyncio
import json
import sys

from aioice import Candidate, Connection


async def main(role, server, username, password):
    connection = Connection(
        ice_controlling=role == "controlling",
        stun_server=(server, 3478),
        turn_server=(server, 3478),
        turn_username=username,
        turn_password=password,
        use_ipv6=False,
    )
    await connection.gather_candidates()
    say(
        {
            "ufrag": connection.local_username,
            "pwd": connection.local_password,
            "candidates": [one.to_sdp() for one in connection.local_candidates],
        }
    )
    other = json.loads(await line())
    connection.remote_username = other["ufrag"]
    connection.remote_password = other["pwd"]
    for described in other["candidates"]:
        await connection.add_remote_candidate(Candidate.from_sdp(described))
    await connection.add_remote_candidate(None)
    await connection.connect()
    say({"connected": True, "controlling": connection.ice_controlling})
    echo = asyncio.ensure_future(echo_all(connection))
    await line()
    echo.cancel()
    await connection.close()


async def echo_all(connection):
    while True:
        await connection.send(await connection.recv())


def say(value):
    print(json.dumps(value), flush=True)


async def line():
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


asyncio.run(main(*sys.argv[1:]))
