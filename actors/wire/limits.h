// Bounds on what the processes of a server send each other and let wait. What clients may send: comm/client/limits.h; what
// a server is configured for: actors/wire/options.h.
#pragma once

#include <cstddef>

namespace lorikeet::actors {

// ---- head and ranks

inline constexpr size_t kEnvelopeBytes = 256 << 10;                 // bytes in one part of a message
inline constexpr size_t kMaxMessageBytes = 256 << 20;               // bytes of a message put together again
inline constexpr size_t kMaxRankMessageBytes = 64 << 20;            // of a rank's messages that are not complete yet
inline constexpr size_t kMaxPeerBytes = 128 << 20;                  // waiting for a peer to read; past it, it is lost
inline constexpr size_t kAdapterChunkBytes = kEnvelopeBytes - 256;  // with what is written around them, one envelope
inline constexpr size_t kMaxAdapterSliceBytes = size_t{2} << 30;    // one adapter's part for one rank
// One in so many of the head's descriptors may be an adapter's memory; adapters beyond that travel as bytes.
inline constexpr size_t kDescriptorsPerStagedAdapter = 8;

// Plans that wait on a rank. The head sends two ahead, which are small but for the prompts that start in them.
inline constexpr size_t kMaxQueuedPlanBytes = 2 * kMaxMessageBytes;
// Envelopes that wait on a rank for its adapter thread. The head sends a few chunks ahead of each adapter's transfer.
inline constexpr size_t kMaxQueuedAdapterBytes = 512 << 20;
// Grammars that wait on a rank to be compiled. The head sends a few ahead; after a loss, those of all that runs.
inline constexpr size_t kMaxQueuedGrammarBytes = 512 << 20;
// Compiled grammars that the head keeps on a rank; beyond it those that are not in use are dropped.
inline constexpr size_t kMaxRankGrammarBytes = 512 << 20;

// The rendezvous store. 64 ranks that each tell every other one an address need 4096 keys.
inline constexpr size_t kMaxRendezvousKeys = 16 << 10;
inline constexpr size_t kMaxRendezvousKeyBytes = 1 << 10;
inline constexpr size_t kMaxRendezvousValueBytes = 64 << 10;
inline constexpr size_t kMaxRendezvousBytes = 64 << 20;  // of all values

// ---- supervisor and children

inline constexpr size_t kMaxRegions = 64;  // that the supervisor holds for a rank
inline constexpr size_t kMaxRegionNameBytes = 64;
inline constexpr size_t kMaxRegionBytes = size_t{1} << 42;  // of all of a rank

inline constexpr size_t kMaxControlBytes = 16 << 20;  // of a message; options with very many adapters are the largest

}  // namespace lorikeet::actors
