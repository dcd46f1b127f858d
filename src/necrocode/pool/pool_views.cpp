#include "necrocode/pool/pool_views.hpp"

#include <chrono>
#include <utility>

#include "necrocode/base/time_format.hpp"

namespace necrocode::pool {

SystemTime wall_time(const Clock& clock, SteadyTime when) {
  return clock.system_now() +
         std::chrono::duration_cast<SystemTime::duration>(when - clock.steady_now());
}

Json view(const Pool& pool, const SlotEntry& slot, const Clock& clock) {
  Json json = Json::object({{"slot_id", slot.lease ? slot.lease->slot_id : slot_name(slot)},
                            {"slot", slot_name(slot)},
                            {"pool", pool.record.name},
                            {"state", std::string(to_string(slot.state))},
                            {"lease", nullptr},
                            {"branch", nullptr},
                            {"commit", nullptr},
                            {"repo_url", pool.record.repo_url},
                            {"slot_path", nullptr}});
  if (slot.proof) {
    json.set("branch", slot.proof->branch);
    json.set("commit", slot.proof->commit);
    json.set("proof", Json::object({{"commit", slot.proof->commit},
                                    {"files", slot.proof->files},
                                    {"proven_at", to_rfc3339(slot.proof->proven_at)}}));
  }
  if (slot.lease) {
    json.set("branch", slot.lease->branch);
    json.set("commit", slot.lease->commit);
    json.set("slot_path", Slot::tree_of(pool.folder, slot.lease->slot_id).string());
    json.set("lease", Json::object({{"required_by", slot.lease->required_by},
                                    {"acquired_at", to_rfc3339(slot.lease->acquired_at)},
                                    {"expires_at", to_rfc3339(wall_time(clock, slot.lease_end))}}));
  }
  if (!slot.record.quarantine_reason.empty())
    json.set("quarantine_reason", slot.record.quarantine_reason);
  json.set("statistics",
           Json::object({{"allocations", slot.record.allocations},
                         {"use_seconds", static_cast<double>(slot.record.use_ms) / 1000}}));
  json.set("disk_bytes", slot.proof ? Json(slot.proof->disk_bytes) : Json());
  return json;
}

Json view(const Pool& pool, const Clock& clock) {
  Json::Array slots;
  std::map<SlotState, int> counts;
  for (const auto& [number, slot] : pool.slots) {
    slots.push_back(view(pool, slot, clock));
    ++counts[slot.state];
  }
  Json json = Json::object({{"name", pool.record.name},
                            {"repo_url", pool.record.repo_url},
                            {"base_branch", pool.record.base_branch},
                            {"base_commit", pool.base_commit},
                            {"num_slots", pool.record.num_slots},
                            {"max_slots", pool.record.max_slots},
                            {"auto_created", pool.record.auto_created},
                            {"created_at", to_rfc3339(pool.record.created_at)},
                            {"waiting", pool.waiters.size()}});
  Json tally = Json::object();
  for (const SlotState state :
       {SlotState::kReady, SlotState::kLeased, SlotState::kPreparing, SlotState::kQuarantined}) {
    tally.set(to_string(state), counts[state]);
  }
  json.set("counts", std::move(tally));
  json.set("slots", std::move(slots));
  return json;
}

Json view(const LeaseRecord& ended) {
  return Json::object({{"slot_id", ended.slot_id},
                       {"pool", ended.pool},
                       {"state", ended.end_reason},
                       {"lease", nullptr},
                       {"branch", ended.branch},
                       {"commit", ended.commit},
                       {"required_by", ended.required_by},
                       {"acquired_at", to_rfc3339(ended.acquired_at)},
                       {"ended_at", ended.ended_at ? Json(to_rfc3339(*ended.ended_at)) : Json()}});
}

Allocation to_allocation(const std::filesystem::path& pool_folder, const std::string& url,
                         const LeaseRecord& lease, SystemTime expires_at) {
  Allocation made;
  made.slot_id = lease.slot_id;
  made.slot_path = Slot::tree_of(pool_folder, lease.slot_id);
  made.git_dir = Slot::git_dir_of(pool_folder, lease.slot_id);
  made.lease_token = lease.token;
  made.expires_at = expires_at;
  made.commit = lease.commit;
  made.branch = lease.branch;
  made.repo_url = url;
  return made;
}

}  // namespace necrocode::pool
