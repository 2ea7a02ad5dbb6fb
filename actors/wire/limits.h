// What may travel and wait between the processes of a server, at most; in bytes where memory is meant. What clients may
// send is in comm/client/limits.h, what a server is configured to take in actors/wire/options.h.
#pragma once

#include <cstddef>

namespace lorikeet::actors {

// ---- head and ranks

inline constexpr size_t kEnvelopeBytes = 256 << 10;                 // bytes in one part of a message
inline constexpr size_t kMaxMessageBytes = 256 << 20;               // bytes of a message put together again
inline constexpr size_t kMaxRankMessageBytes = 64 << 20;            // of those of a rank that are not whole yet
inline constexpr size_t kMaxPeerBytes = 128 << 20;                  // waiting for a peer to read; past it, it is lost
inline constexpr size_t kAdapterChunkBytes = kEnvelopeBytes - 256;  // with what is written around them, one envelope
inline constexpr size_t kMaxAdapterSliceBytes = size_t{2} << 30;    // one adapter's part for one rank
// Of so many descriptors of the head one may be the memory of an adapter; what is staged beyond travels as bytes.
inline constexpr size_t kDescriptorsPerStagedAdapter = 8;

// Plans that wait on a rank. The head sends two ahead, which are small but for the prompts that start in them.
inline constexpr size_t kMaxQueuedPlanBytes = 2 * kMaxMessageBytes;
// Envelopes that wait on a rank for its adapter thread. The head sends a few chunks ahead of each adapter's transfer.
inline constexpr size_t kMaxQueuedAdapterBytes = 512 << 20;
// Grammars that wait on a rank to be compiled. The head sends a few ahead; after a loss, those of all that runs.
inline constexpr size_t kMaxQueuedGrammarBytes = 512 << 20;
// Compiled grammars that the head leaves on a rank, where some of them are not in use.
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
