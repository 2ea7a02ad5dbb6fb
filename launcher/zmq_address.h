// What --zmq may be.
#pragma once

#include <CLI/CLI.hpp>

namespace lorikeet::launcher {

// Refuses what ZeroMQ would call an invalid argument, saying what is missing.
CLI::Validator zmq_address();

}  // namespace lorikeet::launcher
