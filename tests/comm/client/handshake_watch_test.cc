#include "comm/client/handshake_watch.h"

#include <gtest/gtest.h>

namespace lorikeet::comm {
namespace {

// The watched socket, the end that ZeroMQ writes its events to, and the one that reads them.
TEST(HandshakeWatch, IsOffWhereAnyOfItsSocketsCannotBeMade) {
  for (int sockets = 1; sockets <= 3; ++sockets) {
    SCOPED_TRACE(sockets);
    zmq::context_t context;
    context.set(zmq::ctxopt::max_sockets, sockets);
    zmq::socket_t dealer(context, zmq::socket_type::dealer);
    dealer.set(zmq::sockopt::linger, 0);
    HandshakeWatch watch;
    watch.begin(context, dealer);
    EXPECT_EQ(watch.is_on(), sockets == 3);
    EXPECT_EQ(watch.read(), Handshake::none);
    watch.end();
    EXPECT_FALSE(watch.is_on());
  }
}

}  // namespace
}  // namespace lorikeet::comm
