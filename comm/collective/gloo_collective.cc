// The collectives over Gloo's send and recv, since Gloo's own cannot be aborted and add in an order of their own.
// comm/collective/algorithms.md counts the bytes of each.
#include <glog/logging.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "comm/collective/gloo_connect.h"
#include "comm/collective/gloo_mesh.h"
#include "comm/collective/group.h"
#include "comm/collective/ordered_sum.h"

namespace lorikeet::comm {
namespace {

// From here on reduce-scatter and all-gather, with less on the wire in more steps, beat sending everything to everyone.
// With two ranks the bytes are the same and the direct way always wins. Measured by bench/comm/collective_bench.cc.
constexpr size_t kDirectBytes = 64 << 10;

class GlooCollective final : public Collective {
 public:
  explicit GlooCollective(std::unique_ptr<GlooMesh> mesh) : mesh_(std::move(mesh)) {}

  int rank() const override { return mesh_->rank(); }
  int size() const override { return mesh_->size(); }

  void all_reduce(float* data, size_t count) override {
    mesh_->run("all_reduce", [&] {
      if (count == 0) return;
      if (size() == 2 || count * sizeof(float) <= kDirectBytes) {
        all_reduce_direct(data, count);
      } else {
        all_reduce_in_chunks(data, count);
      }
    });
  }

  void all_gather(const void* send, void* receive, size_t bytes) override {
    mesh_->run("all_gather", [&] {
      if (bytes == 0) return;
      char* all = static_cast<char*>(receive);
      char* own = all + rank() * bytes;
      if (send != own) std::memcpy(own, send, bytes);
      GlooMesh::Exchange exchange(*mesh_, {own, bytes}, {receive, size() * bytes});
      for (int peer : mesh_->peers()) exchange.expect(peer, peer * bytes, bytes);
      for (int peer : mesh_->peers()) exchange.send(peer, 0, bytes);
      for (int peer : mesh_->peers()) place(exchange.take(peer), all + peer * bytes, bytes);
      exchange.finish();
    });
  }

  void broadcast(void* data, size_t bytes, int root) override {
    CHECK_GE(root, 0);
    CHECK_LT(root, size());
    mesh_->run("broadcast", [&] {
      if (bytes == 0) return;
      GlooMesh::Exchange exchange(*mesh_, {data, bytes}, {data, bytes});
      if (rank() == root) {
        for (int peer : mesh_->peers()) exchange.send(peer, 0, bytes);
      } else {
        exchange.expect(root, 0, bytes);
        place(exchange.take(root), static_cast<char*>(data), bytes);
      }
      exchange.finish();
    });
  }

  void barrier() override {
    mesh_->run("barrier", [&] {
      GlooMesh::Exchange exchange(*mesh_, {nullptr, 0}, {nullptr, 0});
      for (int peer : mesh_->peers()) exchange.expect(peer, 0, 0);
      for (int peer : mesh_->peers()) exchange.send(peer, 0, 0);
      for (int peer : mesh_->peers()) exchange.take(peer);
      exchange.finish();
    });
  }

  void abort() override { mesh_->abort(); }

 private:
  static void place(const char* message, char* target, size_t bytes) {
    if (message != target) std::memcpy(target, message, bytes);
  }

  // Everyone sends everything to everyone and adds.
  void all_reduce_direct(float* data, size_t count) {
    const size_t bytes = count * sizeof(float);
    GlooMesh::Exchange exchange(*mesh_, {data, bytes}, room_for(bytes));
    for (int peer : mesh_->peers()) exchange.expect(peer, peer * bytes, bytes);
    for (int peer : mesh_->peers()) exchange.send(peer, 0, bytes);
    const std::vector<const float*> terms = take_terms(exchange, data);
    exchange.finish();  // before the sum takes the place of what is sent
    ordered_sum(terms, data, count);
  }

  // Each rank adds one chunk, then hands it to the others.
  void all_reduce_in_chunks(float* data, size_t count) {
    reduce_scatter(data, count);
    char* all = reinterpret_cast<char*>(data);
    const Bytes own = bytes_of_chunk(count, rank());
    GlooMesh::Exchange exchange(*mesh_, {all + own.offset, own.bytes}, {data, count * sizeof(float)});
    for (int peer : mesh_->peers()) {
      const Bytes chunk = bytes_of_chunk(count, peer);
      exchange.expect(peer, chunk.offset, chunk.bytes);
    }
    for (int peer : mesh_->peers()) exchange.send(peer, 0, own.bytes);
    for (int peer : mesh_->peers()) {
      const Bytes chunk = bytes_of_chunk(count, peer);
      place(exchange.take(peer), all + chunk.offset, chunk.bytes);
    }
    exchange.finish();
  }

  // Leaves the sum of this rank's chunk in its place.
  void reduce_scatter(float* data, size_t count) {
    const auto [begin, end] = chunk_of(count, rank(), size());
    const size_t own_count = end - begin, own_bytes = own_count * sizeof(float);
    GlooMesh::Exchange exchange(*mesh_, {data, count * sizeof(float)}, room_for(own_bytes));
    for (int peer : mesh_->peers()) exchange.expect(peer, peer * own_bytes, own_bytes);
    for (int peer : mesh_->peers()) {
      const Bytes chunk = bytes_of_chunk(count, peer);
      exchange.send(peer, chunk.offset, chunk.bytes);
    }
    const std::vector<const float*> terms = take_terms(exchange, data + begin);
    ordered_sum(terms, data + begin, own_count);
    exchange.finish();
  }

  // The terms of a sum by rank: `own`, and what the peers sent.
  std::vector<const float*> take_terms(GlooMesh::Exchange& exchange, const float* own) const {
    std::vector<const float*> terms(size());
    terms[rank()] = own;
    for (int peer : mesh_->peers()) terms[peer] = reinterpret_cast<const float*>(exchange.take(peer));
    return terms;
  }

  struct Bytes {
    size_t offset, bytes;
  };
  Bytes bytes_of_chunk(size_t count, int rank) const {
    const auto chunk = chunk_of(count, rank, size());
    return {chunk.first * sizeof(float), (chunk.second - chunk.first) * sizeof(float)};
  }

  // For a message of each rank, where it does not fit the inbox.
  GlooMesh::Memory room_for(size_t bytes) {
    if (bytes <= GlooInbox::kMessageBytes) return {nullptr, 0};
    const size_t count = bytes / sizeof(float) * size();
    if (scratch_.size() < count) scratch_.resize(count);
    return {scratch_.data(), size() * bytes};
  }

  std::vector<float> scratch_;  // what peers send, of any content
  const std::unique_ptr<GlooMesh> mesh_;
};

}  // namespace

Result<std::unique_ptr<Collective>> make_gloo_collective(Rendezvous& store, const GlooOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return fail("a communicator has no rank {} of {}", options.rank, options.size);
  }
  if (options.size == 1) return std::move(make_local_group(1).front());
  Result<std::unique_ptr<GlooMesh>> mesh = connect_gloo_mesh(store, options);
  if (!mesh) return tl::unexpected(mesh.error());
  auto collective = std::make_unique<GlooCollective>(*std::move(mesh));
  try {
    collective
        ->barrier();  // a rank that is connected may have peers that are not yet, to which its leaving were a loss
  } catch (const CollectiveError& error) {
    return fail("rank {} of {} could not join {}: {}", options.rank, options.size, options.prefix, error.what());
  }
  return collective;
}

}  // namespace lorikeet::comm
