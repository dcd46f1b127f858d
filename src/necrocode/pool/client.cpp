#include "necrocode/pool/client.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

constexpr const char* kService = "repo-pool";

net::ServiceOptions with_url(const std::string& base_url) {
  net::ServiceOptions options;
  options.base_url = base_url;
  return options;
}

net::ServiceCall make_call(std::string operation, std::string target, std::string method,
                           std::string path, Json body = {}) {
  net::ServiceCall call;
  call.operation = std::move(operation);
  call.target = std::move(target);
  call.method = std::move(method);
  call.path = std::move(path);
  call.body = std::move(body);
  return call;
}

std::string slot_path(const SlotId& slot_id) {
  return "/slots/" + percent_encode(slot_id.value);
}
std::string pool_path(const std::string& name) {
  return "/pools/" + percent_encode(name);
}

[[noreturn]] void unreadable(const std::string& operation, const RunnerError& error) {
  ErrorInfo info = error.info();
  info.service = kService;
  info.operation = operation;
  throw InvalidResponse("the answer is not what the protocol says", std::move(info));
}

[[noreturn]] void refuse(const std::string& argument, const std::string& why) {
  ErrorInfo info;
  info.service = kService;
  info.operation = "allocate_slot";
  info.fields = {{"/" + argument, why}};
  throw TaskContextValidationError("the slot request is invalid", std::move(info));
}

SystemTime read_expiry(const Json& json) {
  JsonFields fields(json);
  const auto expires_at = fields.time("expires_at");
  if (!expires_at) fields.fail("expires_at", "is missing");
  try {
    fields.finish("heartbeat answer");
  } catch (const TaskContextValidationError& error) {
    unreadable("heartbeat", error);
  }
  return *expires_at;
}

Json lease_body(const LeaseToken& lease) {
  Json body = Json::object();
  if (!lease.value.empty()) body.set("lease_token", lease.value);
  return body;
}

}  // namespace

SlotAllocation SlotAllocation::from_json(const Json& json) {
  JsonFields fields(json);
  SlotAllocation slot;
  slot.slot_id.value = fields.required_string("slot_id");
  slot.slot_path = fields.required_string("slot_path");
  slot.git_dir = fields.string("git_dir").value_or("");
  slot.lease_token.value = fields.string("lease_token").value_or("");
  slot.expires_at = fields.time("expires_at").value_or(SystemTime{});
  slot.commit = fields.string("commit").value_or("");
  slot.branch = fields.string("branch").value_or("");
  slot.repo_url = fields.string("repo_url").value_or("");
  try {
    fields.finish("slot");
  } catch (const TaskContextValidationError& error) {
    unreadable("allocate_slot", error);
  }
  return slot;
}

RepoPoolClient::RepoPoolClient(const std::string& base_url) : RepoPoolClient(with_url(base_url)) {}
RepoPoolClient::RepoPoolClient(net::ServiceOptions options)
    : caller_(kService, std::move(options)) {}

SlotAllocation RepoPoolClient::allocate_slot(const std::string& repo_url,
                                             const std::string& required_by, double timeout_seconds,
                                             const SlotAllocateOptions& options,
                                             const CallContext& context) {
  if (!std::isfinite(timeout_seconds)) refuse("timeout_seconds", "is not a finite number");
  Json body = Json::object({{"repo_url", repo_url},
                            {"required_by", required_by},
                            {"timeout_seconds", timeout_seconds},
                            {"lease_seconds", static_cast<std::int64_t>(options.lease.count())}});
  if (!options.ref.empty()) body.set("ref", options.ref);
  if (options.max_age)
    body.set("max_age_seconds", static_cast<std::int64_t>(options.max_age->count()));
  // Told of the call is who asks, not the URL: a mistaken one may hold a password.
  net::ServiceCall call =
      make_call("allocate_slot", required_by, "POST", "/slots/allocate", std::move(body));
  // The service holds the answer back for that long.
  call.extra_time = std::chrono::milliseconds(
      static_cast<std::int64_t>(std::clamp(timeout_seconds, 0.0, 86'400.0) * 1000));
  return SlotAllocation::from_json(caller_.call_json(call, context));
}

void RepoPoolClient::release_slot(const SlotId& slot_id, const LeaseToken& lease,
                                  const CallContext& context) {
  caller_.call(make_call("release_slot", slot_id.value, "POST", slot_path(slot_id) + "/release",
                         lease_body(lease)),
               context);
}

Json RepoPoolClient::get_slot_status(const SlotId& slot_id, const CallContext& context) {
  return caller_.call_json(make_call("get_slot_status", slot_id.value, "GET", slot_path(slot_id)),
                           context);
}

SystemTime RepoPoolClient::heartbeat(const SlotId& slot_id, const LeaseToken& lease,
                                     const CallContext& context) {
  return read_expiry(
      caller_.call_json(make_call("heartbeat", slot_id.value, "POST",
                                  slot_path(slot_id) + "/heartbeat", lease_body(lease)),
                        context));
}

net::HealthStatus RepoPoolClient::health_check() {
  return caller_.health_check("pool");
}

Json RepoPoolClient::add_pool(const PoolSpec& spec, const CallContext& context) {
  Json body = Json::object(
      {{"repo_url", spec.repo_url}, {"num_slots", spec.num_slots}, {"max_slots", spec.max_slots}});
  if (!spec.name.empty()) body.set("name", spec.name);
  if (!spec.base_branch.empty()) body.set("base_branch", spec.base_branch);
  return caller_.call_json(make_call("add_pool", spec.name, "POST", "/pools", std::move(body)),
                           context);
}

Json RepoPoolClient::list_pools(const CallContext& context) {
  return caller_.call_json(make_call("list_pools", "", "GET", "/pools"), context);
}

Json RepoPoolClient::get_pool(const std::string& name, const CallContext& context) {
  return caller_.call_json(make_call("get_pool", name, "GET", pool_path(name)), context);
}

void RepoPoolClient::remove_pool(const std::string& name, const CallContext& context) {
  caller_.call(make_call("remove_pool", name, "DELETE", pool_path(name)), context);
}

Json RepoPoolClient::warm(const std::string& name, const CallContext& context) {
  return caller_.call_json(
      make_call("warm", name, "POST", pool_path(name) + "/warm", Json::object()), context);
}

}  // namespace necrocode
