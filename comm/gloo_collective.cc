// The collectives over Gloo's send and recv, since Gloo's own cannot be aborted and add in an order of their own.
// comm/algorithms.md counts the bytes of each.
#include <glog/logging.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <utility>

#include "comm/gloo_connect.h"
#include "comm/gloo_mesh.h"
#include "comm/group.h"
#include "comm/ordered_sum.h"

namespace lorikeet::comm {
namespace {

// From here on reduce-scatter and all-gather, with less on the wire in more steps, beat sending everything to everyone.
// With two ranks the bytes are the same and the direct way always wins. Measured by bench/collective_bench.cc.
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
      char* own = static_cast<char*>(receive) + rank() * bytes;
      if (send != own) std::memcpy(own, send, bytes);
      GlooMesh::Exchange exchange(*mesh_, {own, bytes}, {receive, size() * bytes});
      for (int peer : mesh_->peers()) exchange.receive(peer, peer * bytes, bytes);
      for (int peer : mesh_->peers()) exchange.send(peer, 0, bytes);
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
        exchange.receive(root, 0, bytes);
      }
      exchange.finish();
    });
  }

  void barrier() override {
    mesh_->run("barrier", [&] {
      GlooMesh::Exchange exchange(*mesh_, {nullptr, 0}, {nullptr, 0});
      for (int peer : mesh_->peers()) exchange.receive(peer, 0, 0);
      for (int peer : mesh_->peers()) exchange.send(peer, 0, 0);
      exchange.finish();
    });
  }

  void abort() override { mesh_->abort(); }

 private:
  // Everyone sends everything to everyone and adds.
  void all_reduce_direct(float* data, size_t count) {
    const size_t bytes = count * sizeof(float);
    grow_scratch(count * size());
    GlooMesh::Exchange exchange(*mesh_, {data, bytes}, {scratch_.data(), size() * bytes});
    for (int peer : mesh_->peers()) exchange.receive(peer, peer * bytes, bytes);
    for (int peer : mesh_->peers()) exchange.send(peer, 0, bytes);
    exchange.finish();
    std::vector<const float*> terms;
    for (int r = 0; r < size(); ++r) terms.push_back(r == rank() ? data : scratch_.data() + r * count);
    ordered_sum(terms, data, count);
  }

  // Each rank adds one chunk, then hands it to the others.
  void all_reduce_in_chunks(float* data, size_t count) {
    reduce_scatter(data, count);
    const auto own = bytes_of_chunk(count, rank());
    GlooMesh::Exchange exchange(*mesh_, {reinterpret_cast<char*>(data) + own.offset, own.bytes},
                                {data, count * sizeof(float)});
    for (int peer : mesh_->peers()) {
      const auto chunk = bytes_of_chunk(count, peer);
      exchange.receive(peer, chunk.offset, chunk.bytes);
    }
    for (int peer : mesh_->peers()) exchange.send(peer, 0, own.bytes);
    exchange.finish();
  }

  // Leaves the sum of this rank's chunk in its place.
  void reduce_scatter(float* data, size_t count) {
    const auto [begin, end] = chunk_of(count, rank(), size());
    const size_t own_count = end - begin, own_bytes = own_count * sizeof(float);
    grow_scratch(own_count * size());
    GlooMesh::Exchange exchange(*mesh_, {data, count * sizeof(float)}, {scratch_.data(), size() * own_bytes});
    for (int peer : mesh_->peers()) exchange.receive(peer, peer * own_bytes, own_bytes);
    for (int peer : mesh_->peers()) {
      const auto chunk = bytes_of_chunk(count, peer);
      exchange.send(peer, chunk.offset, chunk.bytes);
    }
    exchange.finish();
    std::vector<const float*> terms;
    for (int r = 0; r < size(); ++r) terms.push_back(r == rank() ? data + begin : scratch_.data() + r * own_count);
    ordered_sum(terms, data + begin, own_count);
  }

  struct Bytes {
    size_t offset, bytes;
  };
  Bytes bytes_of_chunk(size_t count, int rank) const {
    const auto chunk = chunk_of(count, rank, size());
    return {chunk.first * sizeof(float), (chunk.second - chunk.first) * sizeof(float)};
  }

  void grow_scratch(size_t count) {
    if (scratch_.size() < count) scratch_.resize(count);
  }

  std::vector<float> scratch_;  // what peers send
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
  return std::make_unique<GlooCollective>(*std::move(mesh));
}

}  // namespace lorikeet::comm
