// The values that --zmq may have.
#pragma once

#include <CLI/CLI.hpp>

namespace lorikeet::launcher {

// Refuses addresses that ZeroMQ would refuse as an invalid argument, and says what is wrong.
CLI::Validator zmq_address();

}  // namespace lorikeet::launcher
