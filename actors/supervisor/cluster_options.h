// How a server and its workers make a cluster of hosts.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "actors/wire/host_message.h"

namespace lorikeet::actors {

// For the supervisor on the head's host; other processes do not see it.
struct ClusterOptions {
  int32_t nnodes = 1;       // hosts, this one included; 1: there is no cluster
  std::string master_addr;  // to listen on; empty: on all addresses
  uint16_t master_port = 29501;
  std::string directory;       // comm/cluster/keys.h
  std::string token_file;      // empty: directory/token
  HostDevices devices;         // that this host lends itself
  std::string interface_name;  // of the collectives; empty: the one over which workers connect
  bool mixed_devices = false;  // hosts may lend devices of several models
  std::string version;         // workers must have the same
  std::chrono::seconds join_timeout{600};
};

// For the supervisor of a host that lends its devices.
struct WorkerOptions {
  std::string master_addr;
  uint16_t master_port = 29501;
  std::string directory;
  std::string token_file;  // empty: directory/token
  HostDevices devices;
  std::string name;             // for people
  std::string interface_name;   // of the collectives; empty: that of the route to the head
  std::string model;            // where this host has the checkpoint; empty: where the head has it
  std::string download_dir;     // where its ranks' part goes if it is not there
  uint64_t download_space = 0;  // bytes of all that is there; 0: no bound
  bool spare = false;
  std::string version;
};

}  // namespace lorikeet::actors
