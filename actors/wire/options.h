// The one validated configuration of a server. The launcher fills it from flags; the supervisor hands it to the head
// and to the ranks as one encoded value, so every process sees the same.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "actors/wire/chat_options.h"
#include "model/adapter/lora_limits.h"

namespace lorikeet::actors {

// A client's credentials, and what it may do with them: a key (HTTP: Bearer; ZeroMQ: PLAIN's password), or the public key
// of a CURVE client.
struct CredentialOptions {
  std::string key;
  std::string curve_public_key;  // Z85; one of both is empty
  std::string tenant = "default";
  bool all_adapters = true;
  std::vector<std::string> adapters;  // else these
  bool admin = true;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("key", s.key);
    visit("curve_public_key", s.curve_public_key);
    visit("tenant", s.tenant);
    visit("all_adapters", s.all_adapters);
    visit("adapters", s.adapters);
    visit("admin", s.admin);
  }
};

// How much a tenant may ask for; 0: no limit.
struct TenantOptions {
  std::string name;
  int32_t requests_per_minute = 0;
  int64_t tokens_in_flight = 0;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("requests_per_minute", s.requests_per_minute);
    visit("tokens_in_flight", s.tokens_in_flight);
  }
};

// Who may use HTTP and ZeroMQ.
struct AccessOptions {
  std::vector<CredentialOptions> credentials;
  std::vector<TenantOptions> tenants;          // those that have limits
  std::string zmq_mechanism;                   // empty: everybody is let in; plain; curve
  std::string zmq_public_key, zmq_secret_key;  // the server's, of CURVE, Z85

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("credentials", s.credentials);
    visit("tenants", s.tenants);
    visit("zmq_mechanism", s.zmq_mechanism);
    visit("zmq_public_key", s.zmq_public_key);
    visit("zmq_secret_key", s.zmq_secret_key);
  }
};

// The HTTP door of the head.
struct HttpDoorOptions {
  std::string host = "127.0.0.1";
  int32_t port = -1;                         // -1: there is no door; 0: one is picked
  std::string root_path;                     // a prefix of the path that a proxy leaves in
  std::vector<std::string> allowed_origins;  // of web pages; "*": all
  std::string ssl_keyfile, ssl_certfile;     // PEM; both or none
  std::string ssl_ca_certs;
  int32_t ssl_cert_reqs = 0;  // certificates of clients: 0 none, 1 optional, 2 required

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("host", s.host);
    visit("port", s.port);
    visit("root_path", s.root_path);
    visit("allowed_origins", s.allowed_origins);
    visit("ssl_keyfile", s.ssl_keyfile);
    visit("ssl_certfile", s.ssl_certfile);
    visit("ssl_ca_certs", s.ssl_ca_certs);
    visit("ssl_cert_reqs", s.ssl_cert_reqs);
  }
};

// The log of the head, on standard error.
struct LogOptions {
  std::string level = "off";  // trace, debug, info, warning, error, critical, off
  bool requests = true;       // a line for each that has ended
  bool json = false;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("level", s.level);
    visit("requests", s.requests);
    visit("json", s.json);
  }
};

struct ServerOptions {
  std::string model;                                              // directory of the checkpoint
  std::string served_model_name;                                  // default: the directory's name
  std::vector<std::string> more_model_names;                      // under which the base model is served, too
  std::vector<std::pair<std::string, std::string>> lora_modules;  // name -> directory
  int32_t tensor_parallel_size = 1;
  std::string device = "cpu";  // cpu or cuda ("auto" has been decided)
  std::string zmq_address = "tcp://127.0.0.1:5555";
  HttpDoorOptions http;
  AccessOptions access;
  LogOptions log;

  int32_t max_model_len = 0;  // 0: from the checkpoint
  int32_t max_num_seqs = 256;
  int32_t max_num_batched_tokens = 2048;
  int32_t max_num_queued_reqs = 4096;
  int32_t block_size = 16;
  uint64_t kv_cache_memory_bytes = 0;  // per rank; 0: a default (cpu), or from gpu_memory_utilization (cuda)
  std::string gpu_memory_utilization = "0.9";
  std::string kv_cache_dtype = "auto";
  std::string dtype = "auto";
  std::string cpu_activations = "float32";  // or int8: of int4 products on the CPU
  std::string load_format = "auto";         // auto or dummy
  bool enable_prefix_caching = true;

  int32_t max_loras = 8;                     // adapter slots of every rank
  uint64_t lora_memory_bytes = 0;            // of every rank, for what is in its slots; 0: the backend decides
  int32_t max_cpu_loras = 0;                 // adapters staged in the head's memory; 0: as many as fit
  uint64_t max_cpu_lora_bytes = 4ULL << 30;  // byte budget of the staged adapters
  int32_t max_lora_rank = model::kMaxLoraRank;
  bool runtime_lora_updating = false;  // clients may load, unload and pin adapters
  std::vector<std::string> lora_dirs;  // what they load must lie below one of these

  uint64_t seed = 0;                 // from which requests without a seed get theirs; 0: the system's
  int32_t threads = 0;               // CPU threads per rank; 0: max(1, cores / ranks)
  int32_t heartbeat_ms = 500;        // between our processes
  int32_t rank_timeout_ms = 30'000;  // that a step may take beyond its work before its rank counts as hung
  int32_t request_timeout_ms = 0;    // from a request's arrival to its end; 0: as long as it takes
  int32_t drain_timeout_ms = 0;      // that running requests get to end when the server is asked to stop
  bool time_steps = false;           // the ranks measure every step on their device; its totals are in the status
  std::string chat_template;  // empty: the checkpoint's own; else the name of a known template or a file that is one
  ChatOptions chat;
  std::string test_hooks;  // for tests alone: comma-separated, e.g. "hold_adapter_load=kjv"

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("model", s.model);
    visit("served_model_name", s.served_model_name);
    visit("more_model_names", s.more_model_names);
    visit("lora_modules", s.lora_modules);
    visit("tensor_parallel_size", s.tensor_parallel_size);
    visit("device", s.device);
    visit("zmq_address", s.zmq_address);
    visit("http", s.http);
    visit("access", s.access);
    visit("log", s.log);
    visit("max_model_len", s.max_model_len);
    visit("max_num_seqs", s.max_num_seqs);
    visit("max_num_batched_tokens", s.max_num_batched_tokens);
    visit("max_num_queued_reqs", s.max_num_queued_reqs);
    visit("block_size", s.block_size);
    visit("kv_cache_memory_bytes", s.kv_cache_memory_bytes);
    visit("gpu_memory_utilization", s.gpu_memory_utilization);
    visit("kv_cache_dtype", s.kv_cache_dtype);
    visit("dtype", s.dtype);
    visit("cpu_activations", s.cpu_activations);
    visit("load_format", s.load_format);
    visit("enable_prefix_caching", s.enable_prefix_caching);
    visit("max_loras", s.max_loras);
    visit("lora_memory_bytes", s.lora_memory_bytes);
    visit("max_cpu_loras", s.max_cpu_loras);
    visit("max_cpu_lora_bytes", s.max_cpu_lora_bytes);
    visit("max_lora_rank", s.max_lora_rank);
    visit("runtime_lora_updating", s.runtime_lora_updating);
    visit("lora_dirs", s.lora_dirs);
    visit("seed", s.seed);
    visit("threads", s.threads);
    visit("heartbeat_ms", s.heartbeat_ms);
    visit("rank_timeout_ms", s.rank_timeout_ms);
    visit("request_timeout_ms", s.request_timeout_ms);
    visit("drain_timeout_ms", s.drain_timeout_ms);
    visit("time_steps", s.time_steps);
    visit("chat_template", s.chat_template);
    visit("chat", s.chat);
    visit("test_hooks", s.test_hooks);
  }
};

}  // namespace lorikeet::actors
