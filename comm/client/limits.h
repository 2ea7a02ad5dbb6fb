// What clients and the server may send each other, at most: every door keeps to it, and comm/PROTOCOL.md says it to
// clients (tests/comm/client/limits_test.cc holds the two together). Bytes where memory is meant.
#pragma once

#include <cstddef>

#include "comm/codec/bounded_json.h"

namespace lorikeet::comm {

// ---- a message of a client

inline constexpr size_t kMaxBodyBytes = 16 << 20;  // a request and whatever is in it: prompts, ids, messages
inline constexpr size_t kMaxFrameBodies = 2;  // a frame of ZeroMQ is read up to here, to be refused with a sentence
inline constexpr size_t kMaxJsonDepth = 64;   // schemas of tools nest
inline constexpr size_t kMaxJsonValues = 1 << 20;  // numbers, strings, objects, ..., keys included
inline constexpr JsonLimits kBodyLimits{kMaxBodyBytes, kMaxJsonDepth, kMaxJsonValues};

// ---- what a request names

inline constexpr size_t kMaxIdBytes = 256;
inline constexpr size_t kMaxAdapterBytes = 256;  // of an adapter's name
inline constexpr size_t kMaxPathBytes = 4096;    // of the directory that one is loaded from
inline constexpr size_t kMaxStops = 256;
inline constexpr size_t kMaxStopBytes = 4096;  // of one stop string
inline constexpr size_t kMaxStopTokens = 4096;

// ---- what waits

inline constexpr size_t kMaxUndecodedBytes = 256
                                             << 20;   // bodies of all clients; past it, none is read from the network
inline constexpr size_t kMaxUnreadBytes = 8 << 20;    // answers of one client that it has not read
inline constexpr size_t kMaxHeldMessages = 1000;      // of a client, before the server's first word
inline constexpr size_t kMaxAnswerBytes = 256 << 20;  // of one message of the server: prompt_logprobs, the status
inline constexpr size_t kMaxStatusValues = 16 << 20;  // numbers, strings, ... of the status: very many adapters
inline constexpr JsonLimits kStatusLimits{kMaxAnswerBytes, kMaxJsonDepth, kMaxStatusValues};

}  // namespace lorikeet::comm
