// What a block of the decode attention makes of q, k and v as the product left them. Included by attention_decode_cuda.cu.
#pragma once

#include "kernels/attention/decode_feed.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/layer/rope_head.cuh"

namespace lorikeet::kernels::attention {

// A head that one warp rotates or stores, of one of the items.
struct RotateTask {
  int item = -1;  // -1: none
  int kind = 0;   // 0: query, 1: key, 2: value
  int head = 0;   // counts q heads, then k, then v
  int in_tile = 0;

  static __device__ __forceinline__ RotateTask of(const DecodeAttentionArgs& args, const Item* of_pass, int items,
                                                  int index) {
    RotateTask task;
    const int kv_heads = args.cache.kv_heads;
    const int queries = min(kHeadTile, args.division.group());
    int place = 0;
    for (; index >= queries + 2; place++) index -= queries + 2;
    if (place >= items) return task;
    const Item& item = of_pass[place];
    task.in_tile = index;
    task.kind = max(0, task.in_tile - queries + 1);
    task.head =
        task.kind == 0 ? item.first_head + task.in_tile : args.heads + (task.kind - 1) * kv_heads + item.kv_head;
    const bool wanted = task.kind == 0 ? task.in_tile < item.heads : item.has_newest();
    if (wanted && item.context > 0) task.item = place;
    return task;
  }
};

// The items' queries come to shared memory, and the newest keys and values there and to the cache. Two heads of a warp
// are on their way at a time. Waits for the kernel before this one when all that does not depend on it is requested.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void rotate(const DecodeAttentionArgs& args, Shared<T, Kv, kHeadDim>& shared, int items) {
  const int tasks = items * (min(kHeadTile, args.division.group()) + 2);
#pragma unroll 1
  for (int first = threadIdx.x / device::kWarpSize; first < tasks; first += 2 * kWarps) {
    RotateTask task[2];
    int token[2] = {0, 0};
    int64_t place[2] = {-1, -1};  // in the cache
    device::RopeHead<T, kHeadDim> head[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      task[i] = RotateTask::of(args, shared.items, items, first + i * kWarps);
      if (task[i].item < 0) continue;
      const Item& item = shared.items[task[i].item];
      head[i].load_weights(args.rope, task[i].head);
      token[i] = item.token;
      const int slot = task[i].kind > 0 ? args.rope.kv_slots[item.token] : -1;
      if (slot >= 0) place[i] = device::kv_place(args.cache, item.kv_head, slot);
    }
    device::wait_for_previous_kernel();
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (task[i].item >= 0) head[i].load(args.rope, token[i], task[i].head);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (task[i].item < 0) continue;
      head[i].make(args.rope, task[i].head);
      if (task[i].kind == 0) {
        head[i].store(shared.queries[task[i].item][task[i].in_tile]);
        continue;
      }
      const int half = task[i].kind - 1;
      const float scale = head[i].template scale_of<Kv>();
      head[i].template store_as_read<Kv>(shared.newest[task[i].item][half], scale);
      if (threadIdx.x % device::kWarpSize == 0) shared.newest_scales[task[i].item][half] = scale;
      if (place[i] >= 0) head[i].template store_kv_at<Kv>(args.cache, half == 1, place[i], scale);
    }
  }
}

// Where a sequence has several rows in the step, the positions before an item's last one that are computed by it come to
// the cache before this block reads them there. Other blocks store the same bits: none waits for another.
template <class T, class Kv, int kHeadDim>
__device__ __noinline__ void store_earlier(const DecodeAttentionArgs& args, const Shared<T, Kv, kHeadDim>& shared,
                                           int items) {
  device::wait_for_previous_kernel();
#pragma unroll 1
  for (int i = 0; i < items; i++) {
    const Item& item = shared.items[i];
    const int earlier = args.runs[item.row] - 1;
#pragma unroll 1
    for (int task = threadIdx.x / device::kWarpSize; task < 2 * earlier; task += kWarps) {
      const int half = task & 1;  // 0: key, 1: value
      const int token = item.token - 1 - task / 2;
      const int head_index = args.heads + half * args.cache.kv_heads + item.kv_head;
      const int slot = args.rope.kv_slots[token];
      device::RopeHead<T, kHeadDim> head;
      head.load_weights(args.rope, head_index);
      head.load(args.rope, token, head_index);
      head.make(args.rope, head_index);
      const float scale = head.template scale_of<Kv>();
      if (slot >= 0) head.template store_kv<Kv>(args.cache, half == 1, item.kv_head, slot, scale);
    }
  }
  __syncthreads();
}

}  // namespace lorikeet::kernels::attention
