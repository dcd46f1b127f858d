#include "necrocode/pool/service.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <utility>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/json_schema.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/net/idempotency.hpp"
#include "necrocode/net/request_fields.hpp"

namespace necrocode::pool {
namespace {

using namespace std::chrono_literals;

constexpr double kTimeoutDefault = 20;  // SPEC section 3: clients give up at 30 s
constexpr std::int64_t kLeaseSecondsMax = 7 * 24 * 3600;
constexpr int kSlotsMax = 1000;
constexpr std::size_t kRequiredByBytes = 256;
constexpr std::size_t kUrlBytes = 8 * limits::kKiB;  // longer ones are no input but an attack
constexpr const char* kRetryAfter = "1";
// Work on a whole pool; the answer comes when it is done, or says how far it is.
constexpr auto kPoolWorkTime = 25s;

using SharedParked = std::shared_ptr<net::Parked>;

/// The answer for an error, at any time after the request.
net::Response answer_error(const std::exception_ptr& error, const net::Request& request) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    net::Response response = net::problem_for(known, request);
    if (response.status == 503 && !response.headers.get("Retry-After")) {
      response.headers.set("Retry-After", kRetryAfter);
    }
    return response;
  }
}

net::Response busy(const std::string& detail, const net::Request& request) {
  net::Response response = net::problem(503, detail, request.path);
  response.headers.set("Retry-After", kRetryAfter);
  return response;
}

/// What of a request an answer may need after the handler has returned.
std::shared_ptr<net::Request> keep(const net::Request& request) {
  auto kept = std::make_shared<net::Request>();
  kept->method = request.method;
  kept->target = request.target;
  kept->path = request.path;
  kept->request_id = request.request_id;
  return kept;
}

Json to_json(const Allocation& allocation) {
  return Json::object({{"slot_id", allocation.slot_id},
                       {"slot_path", allocation.slot_path.string()},
                       {"git_dir", allocation.git_dir.string()},
                       {"lease_token", allocation.lease_token},
                       {"expires_at", to_rfc3339(allocation.expires_at)},
                       {"commit", allocation.commit},
                       {"branch", allocation.branch},
                       {"repo_url", allocation.repo_url}});
}

/// A URL that is refused is told as a bad field; the URL itself is in no message.
template <class Call>
auto checked_url(Call call) {
  try {
    return call();
  } catch (const SecurityError& refused) {
    throw net::HttpError(422, refused.summary(), {{"/repo_url", refused.summary()}});
  }
}

// What bodies hold.

std::string read_token(JsonFields& fields) {
  return fields.string("lease_token", 1 * limits::kKiB).value_or("");
}

std::string token_of(const std::string& in_body, const net::Request& request) {
  return in_body.empty() ? request.headers.get_or("X-Lease-Token", "") : in_body;
}

struct WantedSlot {
  AllocateRequest request;
  double timeout = kTimeoutDefault;  ///< seconds
};
WantedSlot read_wanted_slot(JsonFields& fields) {
  WantedSlot slot;
  AllocateRequest& wanted = slot.request;
  wanted.repo_url = fields.required_string("repo_url", kUrlBytes);
  wanted.required_by = fields.string("required_by", kRequiredByBytes).value_or("");
  wanted.ref = fields.string("ref", 256).value_or("");
  wanted.lease =
      std::chrono::seconds(fields.integer("lease_seconds", 1, kLeaseSecondsMax).value_or(7200));
  if (const auto age = fields.integer("max_age_seconds", 0, 365 * 24 * 3600))
    wanted.max_age = std::chrono::seconds(*age);
  slot.timeout = fields.number("timeout_seconds", 0, 1e9).value_or(kTimeoutDefault);
  if (!wanted.ref.empty() && !git::is_branch_name(wanted.ref) && !git::is_object_id(wanted.ref)) {
    fields.fail("ref", "is not the name of a branch or tag, nor a full commit id");
  }
  return slot;
}

struct Renewal {
  std::string token;
  std::optional<std::chrono::seconds> lease;
};
Renewal read_renewal(JsonFields& fields) {
  Renewal renewal{read_token(fields), std::nullopt};
  if (const auto seconds = fields.integer("lease_seconds", 1, kLeaseSecondsMax))
    renewal.lease = std::chrono::seconds(*seconds);
  return renewal;
}

PoolRequest read_pool(JsonFields& fields) {
  PoolRequest wanted;
  wanted.repo_url = fields.required_string("repo_url", kUrlBytes);
  wanted.name = fields.string("name", limits::kNameBytes).value_or("");
  wanted.base_branch = fields.string("base_branch", 256).value_or("");
  wanted.num_slots = static_cast<int>(fields.integer("num_slots", 0, kSlotsMax).value_or(2));
  wanted.max_slots = static_cast<int>(
      fields.integer("max_slots", 1, kSlotsMax).value_or(std::max(8, wanted.num_slots)));
  if (!wanted.name.empty() && !is_plain_name(wanted.name)) {
    fields.fail("name",
                "has letters, digits, '.', '_' and '-' only, and begins with a letter or digit");
  }
  if (!wanted.base_branch.empty() && !git::is_branch_name(wanted.base_branch)) {
    fields.fail("base_branch", "is not a branch name");
  }
  if (wanted.max_slots < wanted.num_slots) fields.fail("max_slots", "is less than num_slots");
  return wanted;
}

// The schemas of answers.
void define_schemas(net::Api& api) {
  using namespace schema;
  api.define("SlotLease", object({{"slot_id", text()},
                                  {"slot_path", text()},
                                  {"git_dir", text()},
                                  {"lease_token", text()},
                                  {"expires_at", time()},
                                  {"commit", text()},
                                  {"branch", text()},
                                  {"repo_url", text()}}));
  api.define("ReleasedSlot", object({{"slot_id", text()}, {"released", boolean()}}));
  api.define("RenewedSlot", object({{"slot_id", text()}, {"expires_at", time()}}));
  const Json lease =
      object({{"required_by", text()}, {"acquired_at", time()}, {"expires_at", time()}});
  const Json proof = object({{"commit", text()}, {"files", integer()}, {"proven_at", time()}});
  api.define(
      "Slot",
      object({{"slot_id", text()},
              {"pool", text()},
              {"state", text()},
              {"lease", or_null(lease)},
              {"branch", or_null(text())},
              {"commit", or_null(text())}},
             {{"slot", text()},
              {"repo_url", text()},
              {"slot_path", or_null(text())},
              {"proof", proof},
              {"quarantine_reason", text()},
              {"statistics", object({{"allocations", integer()}, {"use_seconds", number()}})},
              {"disk_bytes", or_null(integer())},
              // Of a lease that has ended, how it did.
              {"required_by", text()},
              {"acquired_at", time()},
              {"ended_at", or_null(time())}}));
  api.define("Pool", object({{"name", text()},
                             {"repo_url", text()},
                             {"base_branch", text()},
                             {"base_commit", text()},
                             {"num_slots", integer()},
                             {"max_slots", integer()},
                             {"auto_created", boolean()},
                             {"created_at", time()},
                             {"waiting", integer()},
                             {"counts", map(integer())},
                             {"slots", list(ref("Slot"))}}));
}

/// Parks; `begin` gets the delivery. When time passes first, `late` answers.
net::Response park(const net::Request& request, int status,
                   std::function<void(Deliver<Json>)> begin, std::function<net::Response()> late) {
  net::ParkRequest parked;
  parked.timeout = kPoolWorkTime;
  parked.on_timeout = std::move(late);
  parked.start = [begin = std::move(begin), kept = keep(request), status](SharedParked handle) {
    begin([handle = std::move(handle), kept, status](Answer<Json> answer) {
      if (const auto* error = std::get_if<std::exception_ptr>(&answer)) {
        return handle->complete(answer_error(*error, *kept));
      }
      if (status == 204) return handle->complete(net::Response::empty(status));
      return handle->complete(net::Response::json(status, std::get<Json>(answer)));
    });
  };
  return net::Response::park(std::move(parked));
}

}  // namespace

PoolService::PoolService(std::unique_ptr<PoolManager> manager) : manager_(std::move(manager)) {}
PoolService::~PoolService() {
  stop();
}

void PoolService::add_metrics(metrics::Registry& registry) {
  registry.gauge("necrocode_slots", "Slots by pool and state.", [this] {
    std::vector<metrics::Sample> samples;
    const Json pools = manager_->pools();
    for (const Json& pool : pools["items"].items()) {
      for (const auto& [state, count] : pool["counts"].members()) {
        samples.push_back({{{"pool", pool["name"].string_or("")}, {"state", state}},
                           static_cast<double>(count.as_int().value_or(0))});
      }
    }
    if (samples.size() > limits::kMetricSeries) samples.resize(limits::kMetricSeries);
    return samples;
  });
}

net::Response PoolService::slot(const net::Request& request) {
  return net::Response::json(200, manager_->slot_status(request.param("id")));
}
net::Response PoolService::pools(const net::Request&) {
  return net::Response::json(200, manager_->pools());
}
net::Response PoolService::pool(const net::Request& request) {
  return net::Response::json(200, manager_->pool_status(request.param("name")));
}

void PoolService::add_routes(net::Api& api) {
  using schema::ref;
  const auto route = [&](net::Response (PoolService::*handler)(const net::Request&),
                         net::Operation operation) {
    api.route(std::move(operation), std::bind_front(handler, this));
  };

  api.begin_part("Repo Pool Manager", "Clean clones of repositories, leased one by one.");
  define_schemas(api);
  route(&PoolService::allocate,
        {.method = "POST",
         .path = "/slots/allocate",
         .id = "allocateSlot",
         .summary = "Lease a clean clone, waiting for one in order of arrival",
         .headers = {"Idempotency-Key"},
         .body = describe_fields(read_wanted_slot),
         .answers = {{200, ref("SlotLease")}},
         .errors = {404, 409}});
  route(&PoolService::release, {.method = "POST",
                                .path = "/slots/{id}/release",
                                .id = "releaseSlot",
                                .summary = "Give a slot back; told again it does nothing",
                                .headers = {"X-Lease-Token"},
                                .body = describe_fields(read_token),
                                .answers = {{200, ref("ReleasedSlot")}},
                                .errors = {404, 409}});
  route(&PoolService::heartbeat, {.method = "POST",
                                  .path = "/slots/{id}/heartbeat",
                                  .id = "renewSlotLease",
                                  .summary = "Extend a slot's lease",
                                  .headers = {"X-Lease-Token"},
                                  .body = describe_fields(read_renewal),
                                  .answers = {{200, ref("RenewedSlot")}},
                                  .errors = {404, 409}});
  route(&PoolService::slot, {.method = "GET",
                             .path = "/slots/{id}",
                             .id = "getSlot",
                             .summary = "A slot, by its lease or its own name",
                             .answers = {{200, ref("Slot")}},
                             .errors = {404}});
  route(&PoolService::pools, {.method = "GET",
                              .path = "/pools",
                              .id = "listPools",
                              .summary = "All pools with their slots",
                              .answers = {{200, schema::page(ref("Pool"))}}});
  route(&PoolService::create_pool, {.method = "POST",
                                    .path = "/pools",
                                    .id = "createPool",
                                    .summary = "Make a pool for a repository, and read it",
                                    .body = describe_fields(read_pool),
                                    .answers = {{201, ref("Pool")}},
                                    .errors = {409}});
  route(&PoolService::pool, {.method = "GET",
                             .path = "/pools/{name}",
                             .id = "getPool",
                             .summary = "A pool with its slots",
                             .answers = {{200, ref("Pool")}},
                             .errors = {404}});
  route(&PoolService::remove_pool, {.method = "DELETE",
                                    .path = "/pools/{name}",
                                    .id = "removePool",
                                    .summary = "Remove a pool that has no lease",
                                    .answers = {{204}},
                                    .errors = {404, 409}});
  route(&PoolService::warm,
        {.method = "POST",
         .path = "/pools/{name}/warm",
         .id = "warmPool",
         .summary = "Fetch, and prepare all slots; how far it is when it takes long",
         .answers = {{200, ref("Pool")}},
         .errors = {404, 422}});
}

bool PoolService::healthy(std::string& detail) const {
  return manager_->healthy(detail);
}
void PoolService::stop() {
  manager_->stop();
}

net::Response PoolService::allocate(const net::Request& request) {
  auto [wanted, timeout] = net::read_body(request, "slot request", read_wanted_slot);
  checked_url([&] { git::check_remote_url(wanted.repo_url); });
  if (const auto key = net::read_idempotency_key(request)) {
    wanted.idempotency_key = key->name;
    wanted.request_digest = key->fingerprint;
  }
  wanted.wait = timeout > 0;

  const auto wait = std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil(
      std::min(timeout, static_cast<double>(std::chrono::seconds(limits::kSlotWaitMax).count())) *
      1000)));
  const auto ticket = std::make_shared<std::atomic<PoolManager::Ticket>>(0);
  const auto kept = keep(request);
  const auto abandon = [this, ticket] {
    if (const PoolManager::Ticket taken = *ticket) manager_->abandon(taken);
  };
  net::ParkRequest parked;
  // Without waiting, the manager itself answers at once; it gets the time to do so.
  parked.timeout = wanted.wait ? wait : std::chrono::milliseconds(5'000);
  parked.on_gone = abandon;
  parked.on_timeout = [abandon, kept] {
    abandon();
    return busy("no slot became free in time", *kept);
  };
  parked.start = [this, wanted = std::move(wanted), ticket, kept](SharedParked handle) {
    *ticket = manager_->allocate(wanted, [handle, kept](Answer<Allocation> answer) {
      if (const auto* error = std::get_if<std::exception_ptr>(&answer)) {
        return handle->complete(answer_error(*error, *kept));
      }
      return handle->complete(net::Response::json(200, to_json(std::get<Allocation>(answer))));
    });
  };
  return net::Response::park(std::move(parked));
}

net::Response PoolService::release(const net::Request& request) {
  const std::string token = net::read_body(request, "release", read_token);
  manager_->release(request.param("id"), token_of(token, request));
  return net::Response::json(200,
                             Json::object({{"slot_id", request.param("id")}, {"released", true}}));
}

net::Response PoolService::heartbeat(const net::Request& request) {
  const Renewal renewal = net::read_body(request, "heartbeat", read_renewal);
  const SystemTime end =
      manager_->heartbeat(request.param("id"), token_of(renewal.token, request), renewal.lease);
  return net::Response::json(
      200, Json::object({{"slot_id", request.param("id")}, {"expires_at", to_rfc3339(end)}}));
}

net::Response PoolService::create_pool(const net::Request& request) {
  const PoolRequest wanted = net::read_body(request, "pool", read_pool);
  checked_url([&] { git::check_remote_url(wanted.repo_url); });
  return park(
      request, 201,
      [this, wanted](Deliver<Json> deliver) { manager_->create_pool(wanted, std::move(deliver)); },
      [kept = keep(request)] {
        return busy("the repository is still being read; ask again", *kept);
      });
}

net::Response PoolService::remove_pool(const net::Request& request) {
  const std::string name = request.param("name");
  return park(
      request, 204,
      [this, name](Deliver<Json> deliver) { manager_->remove_pool(name, std::move(deliver)); },
      [kept = keep(request)] { return busy("the pool is still being removed", *kept); });
}

net::Response PoolService::warm(const net::Request& request) {
  const std::string name = request.param("name");
  // A big repository takes longer than a client waits: the status says how far it is.
  return park(
      request, 200,
      [this, name](Deliver<Json> deliver) { manager_->warm(name, std::move(deliver)); },
      [this, name] { return net::Response::json(200, manager_->pool_status(name)); });
}

}  // namespace necrocode::pool
