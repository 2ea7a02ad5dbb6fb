"""When a server's answers come onto the loopback, by the kernel's clock: a client that the machine lets wait sees gaps
that are not the server's. Needs the right to look at packets (root)."""
import ctypes
import pathlib
import socket
import struct
import threading

from server import socket_inodes

SO_TIMESTAMPNS = 35
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
ETH_P_IP = 0x0800
PACKET_HOST = 0


def port_of(pid, server_port):
    """The local port of the process's connection to the server; None: there is none."""
    inodes = socket_inodes(pid)
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and int(fields[2].rsplit(":", 1)[1], 16) == server_port:
            return int(fields[1].rsplit(":", 1)[1], 16)
    return None


def filter_of(source, destination):
    """Of the kernel's packet filter: TCP over IPv4 from the one port to the other, their first bytes."""
    program = [(0x30, 0, 0, 9), (0x15, 0, 6, socket.IPPROTO_TCP),  # the protocol
               (0xB1, 0, 0, 0),                                    # the length of IP's header
               (0x48, 0, 0, 0), (0x15, 0, 3, source), (0x48, 0, 0, 2), (0x15, 0, 1, destination),
               (0x06, 0, 0, 128), (0x06, 0, 0, 0)]
    return b"".join(struct.pack("HBBI", *step) for step in program)


class Wire:
    """Notes when packets with data go from the server's port to the client's, until it is closed."""

    def __init__(self, source, destination):
        self.times, self._done = [], False
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._socket.settimeout(0.1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        program = filter_of(source, destination)
        steps = ctypes.create_string_buffer(program)  # the kernel copies them from here
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(steps)))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        while not self._done:
            try:
                data, ancillary, _, address = self._socket.recvmsg(2048, 256)
            except TimeoutError:
                continue
            if address[2] != PACKET_HOST:  # the loopback shows each packet twice
                continue
            header = 4 * (data[0] & 15)
            if struct.unpack_from(">H", data, 2)[0] <= header + 4 * (data[header + 12] >> 4):
                continue  # no data
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                    seconds, nanoseconds = struct.unpack("qq", value[:16])
                    self.times.append(seconds + nanoseconds * 1e-9)

    def close(self):
        """Ends it; the largest gap between two packets with data, in seconds."""
        self._done = True
        self._thread.join()
        self._socket.close()
        return max((b - a for a, b in zip(self.times, self.times[1:])), default=0.0)
