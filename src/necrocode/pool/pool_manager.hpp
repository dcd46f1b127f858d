// PoolManager: which slot is whose, who waits, what is being prepared. One thread owns all of this
// and the database; a few workers do what takes long (cleaning; git over a network, by workers
// apart); neither waits for the other.
// No HTTP here, and no git command but through Slot and the pool's store.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/pool/pool_store.hpp"

namespace necrocode::pool {

struct PoolManagerOptions {
  /// Ours alone: a second manager on it is refused with ResourceConflictError.
  std::filesystem::path data_dir;
  bool auto_create = true;  ///< a pool for a repository that none is for
  int auto_num_slots = 2;
  int auto_max_slots = 8;
  /// A slot is handed out only when the pool has looked at its remote in this time.
  std::chrono::milliseconds fresh_for{5'000};
  std::size_t workers = 4;                                    ///< prepare and clean slots
  std::size_t network_workers = limits::kPoolNetworkWorkers;  ///< look at remotes
};

struct AllocateRequest {
  std::string repo_url;
  std::string required_by;
  std::string ref;  ///< branch, tag or full commit id; empty: the pool's base branch
  std::chrono::seconds lease{7200};
  std::optional<std::chrono::milliseconds> max_age;  ///< instead of PoolManagerOptions::fresh_for
  bool wait = true;                                  ///< false: a ready slot now, or Unavailable
  std::string idempotency_key;
  std::string request_digest;  ///< of what came with the key: the same key with another is refused
};

struct Allocation {
  std::string slot_id;
  std::filesystem::path slot_path;
  std::filesystem::path git_dir;
  std::string lease_token;
  SystemTime expires_at;
  std::string commit;
  std::string branch;
  std::string repo_url;
};

/// The answer, or why there is none (a RunnerError).
template <class T>
using Answer = std::variant<T, std::exception_ptr>;
/// Called once, on the manager's thread; must not block. False when nobody is there any more: what
/// was handed over is taken back.
template <class T>
using Deliver = std::function<bool(Answer<T>)>;

struct PoolRequest {
  std::string name;  ///< empty: made from the URL
  std::string repo_url;
  std::string base_branch;  ///< empty: the remote's HEAD
  int num_slots = 2;
  int max_slots = 8;
};

/// Thread-safe. Errors: TaskContextValidationError (refused or unreachable repository, unknown
/// ref), NotFound, Conflict, Unavailable, StorageError.
class PoolManager {
 public:
  using Ticket = std::uint64_t;

  /// Takes the data directory, puts right what an earlier process left, and keeps live leases
  /// alive. `store` null: SQLite in the data directory. `git` and `clock` outlive this.
  PoolManager(const git::Git& git, PoolManagerOptions options, const Clock& clock = real_clock(),
              std::unique_ptr<PoolStore> store = nullptr);
  ~PoolManager();  ///< stop()
  PoolManager(const PoolManager&) = delete;
  PoolManager& operator=(const PoolManager&) = delete;

  /// Throws SecurityError for a refused URL; everything else comes through `deliver`.
  Ticket allocate(AllocateRequest request, Deliver<Allocation> deliver);
  /// The waiter is gone; its `deliver` is not called any more (it may be running just now). A pool
  /// that is only being made for it is given up when others wait for a network worker.
  void abandon(Ticket ticket);
  /// Does nothing for an ended lease. `token` empty: not checked.
  void release(const std::string& slot_id, const std::string& token);
  /// The new end of the lease. `lease`: how long it is from now on; empty: as it was.
  SystemTime heartbeat(const std::string& slot_id, const std::string& token,
                       std::optional<std::chrono::seconds> lease);
  /// By slot id (a lease) or slot name (`app-3`).
  Json slot_status(const std::string& slot_id);

  void create_pool(PoolRequest request, Deliver<Json> deliver);
  Json pools();
  Json pool_status(const std::string& name);
  /// Conflict while a slot is leased; else answers when it is gone.
  void remove_pool(const std::string& name, Deliver<Json> deliver);
  /// Looks at the remote and prepares the pool's slots; answers with its status when that is done.
  void warm(const std::string& name, Deliver<Json> deliver);

  /// False, with the reason, after an error that a restart must put right.
  bool healthy(std::string& detail) const;
  /// Ends all work under way; waiters get Unavailable. Leases stay. Safe to call twice.
  void stop();

 private:
  class State;
  std::unique_ptr<State> state_;
};

/// `slug-1a2b3c` for a repository without a pool of its own.
std::string pool_name_for(const std::string& repo_url);

}  // namespace necrocode::pool
