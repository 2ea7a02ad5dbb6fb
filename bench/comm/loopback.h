// A plain TCP connection over the loopback: the floor of what is sent between processes.
#pragma once

#include <glog/logging.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

namespace lorikeet::bench {

// Two ends, for two processes, that send at once (TCP_NODELAY).
inline std::pair<int, int> connected_pair() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  PCHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener, 1) == 0);
  PCHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  const int near = socket(AF_INET, SOCK_STREAM, 0);
  PCHECK(connect(near, reinterpret_cast<sockaddr*>(&address), size) == 0);
  const int far = accept(listener, nullptr, nullptr);
  PCHECK(far >= 0);
  close(listener);
  const int on = 1;
  for (const int end : {near, far}) PCHECK(setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
  return {near, far};
}

}  // namespace lorikeet::bench
