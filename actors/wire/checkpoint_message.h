// How a host that has no copy of the checkpoint gets its ranks' part from the head's supervisor: over separate connections
// (comm/cluster/tls_stream.h), on each of which a CheckpointRequest is followed by its CheckpointAnswer.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "model/checkpoint/rank_parts.h"

namespace lorikeet::actors {

// Bounds: the bytes of a file in one answer; an encoded request or answer.
inline constexpr uint64_t kMaxCheckpointPiece = 4 << 20;
inline constexpr size_t kMaxCheckpointRequest = 4 << 10;
inline constexpr size_t kMaxCheckpointAnswer = kMaxCheckpointPiece + (64 << 10);
// Connections of one host, each of which reads other pieces.
inline constexpr size_t kCheckpointStreams = 4;

namespace checkpoint {

struct ListFiles {
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

struct ReadPiece {
  uint32_t file = 0;  // of the list
  model::ByteRuns runs;
  std::string has;  // SHA-256 of what the asker has there; empty: nothing
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("file", s.file);
    visit("runs", s.runs);
    visit("has", s.has);
  }
};

struct File {
  std::string name;  // without a directory
  uint64_t bytes = 0;
  int64_t written_ns = 0;  // by the head's clock: only whether it is the same counts
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("bytes", s.bytes);
    visit("written_ns", s.written_ns);
  }
  bool operator==(const File&) const = default;
};

struct Files {
  std::string error;  // not empty: why there are none
  std::vector<File> files;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("error", s.error);
    visit("files", s.files);
  }
};

struct Piece {
  std::string error;   // not empty: why it cannot be read
  std::string digest;  // SHA-256 of the bytes
  bool same = false;   // the asker has them
  std::vector<uint8_t> bytes;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("error", s.error);
    visit("digest", s.digest);
    visit("same", s.same);
    visit("bytes", s.bytes);
  }
};

}  // namespace checkpoint

using CheckpointRequest = std::variant<checkpoint::ListFiles, checkpoint::ReadPiece>;
using CheckpointAnswer = std::variant<checkpoint::Files, checkpoint::Piece>;

}  // namespace lorikeet::actors
