"""The cables: what one end does to its connection, the other sees."""

import asyncio
import socket
import struct

from tests.e2e.chaos.cables import Cable


async def test_a_connection_that_the_target_resets_ends_for_its_client() -> None:
    """As when a process is killed before it read what it was sent."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at_once = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.close()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        target: int = server.sockets[0].getsockname()[1]
        cable = Cable(lambda: [target])
        await cable.lay()
        reader, writer = await asyncio.open_connection("127.0.0.1", cable.port)
        try:
            async with asyncio.timeout(30):
                assert await reader.read() == b""
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            await cable.remove()
