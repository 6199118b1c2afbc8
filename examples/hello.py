import asyncio

import burstwire as bw


async def main() -> None:
    async with (
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate()) as server,
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate()) as client,
    ):
        to_server = await client.connect(server.local_address, server.public_key)
        to_client = await anext(aiter(server.incoming()))
        await to_server.send(b"hello")
        print(await to_client.recv(), "from", to_client.peer_key)


asyncio.run(main())
