// What clients and the server may send each other, at most: every door keeps to it, and comm/PROTOCOL.md and
// comm/openai/README.md say it to clients (tests/comm/client/limits_test.cc holds them together). Bytes where memory is meant.
#pragma once

#include <chrono>
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
inline constexpr size_t kMaxLogitBiases = 4096;
inline constexpr size_t kMaxBadWords = 256;
inline constexpr size_t kMaxBadWordBytes = 256;  // of one
inline constexpr size_t kMaxAllowedTokens = 16384;
inline constexpr size_t kMaxCacheSaltBytes = 256;
inline constexpr size_t kMaxPromptLogprobs = 1 << 18;          // values of all prompt tokens together
inline constexpr size_t kMaxStreamedPromptLogprobs = 1 << 15;  // the same of all choices, in a stream over HTTP
inline constexpr int32_t kMaxChoices = 128;                    // of one prompt, as OpenAI
inline constexpr double kMaxTimeoutSeconds = 1e6;
inline constexpr size_t kMaxLogprobs = 20;  // per token, as vLLM's default

// ---- HTTP

inline constexpr size_t kMaxHttpHeadBytes = 32 << 10;  // the request's line and its headers
inline constexpr size_t kMaxHttpHeaders = 100;
inline constexpr size_t kMaxHttpConnections = 4096;  // past it one that rests is closed; where none does, the new one
inline constexpr std::chrono::milliseconds kHttpHeadTime{10'000};   // for a whole head, and for TLS's handshake
inline constexpr std::chrono::milliseconds kHttpBodyTime{60'000};   // for a whole body
inline constexpr std::chrono::milliseconds kHttpIdleTime{75'000};   // between two requests
inline constexpr std::chrono::milliseconds kHttpWriteTime{30'000};  // without a byte that the client takes

// ---- ZeroMQ

inline constexpr size_t kMaxUnspokenConnections = 1024;  // of TCP, that have sent no message; past it the oldest is cut

// ---- what waits

inline constexpr size_t kMaxUndecodedBytes = 256
                                             << 20;   // bodies of all clients; past it, none is read from the network
inline constexpr size_t kMaxUnreadBytes = 8 << 20;    // answers of one client that it has not read
inline constexpr size_t kMaxHeldMessages = 1000;      // of a client, before the server's first word
inline constexpr size_t kMaxAnswerBytes = 256 << 20;  // of one message of the server: prompt_logprobs, the status
inline constexpr size_t kMaxStatusValues = 16 << 20;  // numbers, strings, ... of the status: very many adapters
inline constexpr JsonLimits kStatusLimits{kMaxAnswerBytes, kMaxJsonDepth, kMaxStatusValues};

}  // namespace lorikeet::comm
