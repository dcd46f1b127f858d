// RepoPoolClient: leases ready git workspaces ("slots") from the Repo Pool Manager over HTTP. Slots
// are paths of the pool's own host.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/net/service_caller.hpp"

namespace necrocode {

/// A lease of one slot.
struct SlotAllocation {
  SlotId slot_id;         ///< names this lease
  std::string slot_path;  ///< the work tree, absolute, on the pool's host
  std::string git_dir;    ///< its git directory, outside the work tree; empty from older services
  LeaseToken lease_token;
  SystemTime expires_at;
  std::string commit;  ///< checked out, full id
  std::string branch;  ///< the base branch it is at
  std::string repo_url;
  /// Throws InvalidResponse.
  static SlotAllocation from_json(const Json& json);
};

/// What a lease may ask for beside its repository.
struct SlotAllocateOptions {
  std::string ref;  ///< branch, tag or commit to start from; empty: the pool's base branch
  std::chrono::seconds lease{7200};  ///< without a heartbeat
  /// How old the pool's last look at the remote may be; the slot is handed out only after another
  /// one otherwise. Empty: as the service is set (a few seconds). Who fetches by himself asks for
  /// hours, and gets a ready slot at once.
  std::optional<std::chrono::seconds> max_age;
};

/// A pool to make: the slots of one repository.
struct PoolSpec {
  std::string name;         ///< empty: made from the URL
  std::string repo_url;     ///< https, ssh or file; without credentials
  int num_slots = 2;        ///< made at once
  int max_slots = 8;        ///< grown to on demand
  std::string base_branch;  ///< empty: the remote's HEAD
};

/// Thread-safe. Every call throws what ServiceCaller::call() documents: NotFound for an unknown
/// slot or pool, Conflict for a wrong lease token, TaskContextValidationError for a repository that
/// is refused or cannot be reached, InvalidResponse for an answer that is not as the protocol says.
class RepoPoolClient {
 public:
  static constexpr const char* kDefaultUrl = "http://127.0.0.1:8000";
  /// Both throw ConfigError for a URL or token that cannot be used; see ServiceOptions.
  explicit RepoPoolClient(const std::string& base_url = kDefaultUrl);
  explicit RepoPoolClient(net::ServiceOptions options);

  /// Waits up to `timeout_seconds` for a free slot, in order of arrival, then Unavailable with
  /// retry_at. `required_by` says for whom, in logs and lists. TaskContextValidationError, before
  /// anything is sent, for a time that is infinite or not a number.
  SlotAllocation allocate_slot(const std::string& repo_url, const std::string& required_by,
                               double timeout_seconds = 20, const SlotAllocateOptions& options = {},
                               const CallContext& context = {});
  /// Idempotent: an ended lease is released as a success that does nothing. `lease` empty: not
  /// checked.
  void release_slot(const SlotId& slot_id, const LeaseToken& lease = {},
                    const CallContext& context = {});
  /// As the service tells it: slot_id, state, lease, branch, commit, statistics.
  Json get_slot_status(const SlotId& slot_id, const CallContext& context = {});
  /// Extends the lease by its own length; until when it now lasts, by the pool's clock.
  SystemTime heartbeat(const SlotId& slot_id, const LeaseToken& lease,
                       const CallContext& context = {});
  /// Once, without retries, within the health timeout. Never throws.
  net::HealthStatus health_check();

  /// The pools are told as the service tells them: name, repo_url, slots and their states. Conflict
  /// when another pool has that name.
  Json add_pool(const PoolSpec& spec, const CallContext& context = {});
  /// {"items":[pool, …]}.
  Json list_pools(const CallContext& context = {});
  Json get_pool(const std::string& name, const CallContext& context = {});
  /// Its slots are removed from disk. Conflict while one of them is leased.
  void remove_pool(const std::string& name, const CallContext& context = {});
  /// Fetches, and prepares the free slots at the newest base commit.
  Json warm(const std::string& name, const CallContext& context = {});

  const std::string& base_url() const { return caller_.base_url(); }

 private:
  net::ServiceCaller caller_;
};

}  // namespace necrocode
