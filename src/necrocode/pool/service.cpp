#include "necrocode/pool/service.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/net/idempotency.hpp"

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

std::string lease_token(const net::Request& request, JsonFields& fields) {
  const auto token = fields.string("lease_token", 1 * limits::kKiB);
  return token.value_or(request.headers.get_or("X-Lease-Token", ""));
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

void PoolService::add_routes(net::HttpServer& server) {
  using net::Request;
  using net::Response;
  server.route("POST", "/slots/allocate",
               [this](const Request& request) { return allocate(request); });
  server.route("POST", "/slots/{id}/release",
               [this](const Request& request) { return release(request); });
  server.route("POST", "/slots/{id}/heartbeat",
               [this](const Request& request) { return heartbeat(request); });
  server.route("GET", "/slots/{id}", [this](const Request& request) {
    return Response::json(200, manager_->slot_status(request.param("id")));
  });
  server.route("GET", "/pools",
               [this](const Request&) { return Response::json(200, manager_->pools()); });
  server.route("POST", "/pools", [this](const Request& request) { return create_pool(request); });
  server.route("GET", "/pools/{name}", [this](const Request& request) {
    return Response::json(200, manager_->pool_status(request.param("name")));
  });
  server.route("DELETE", "/pools/{name}",
               [this](const Request& request) { return remove_pool(request); });
  server.route("POST", "/pools/{name}/warm",
               [this](const Request& request) { return warm(request); });
}

bool PoolService::healthy(std::string& detail) const {
  return manager_->healthy(detail);
}
void PoolService::stop() {
  manager_->stop();
}

net::Response PoolService::allocate(const net::Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  AllocateRequest wanted;
  wanted.repo_url = fields.required_string("repo_url", kUrlBytes);
  wanted.required_by = fields.string("required_by", kRequiredByBytes).value_or("");
  wanted.ref = fields.string("ref", 256).value_or("");
  wanted.lease =
      std::chrono::seconds(fields.integer("lease_seconds", 1, kLeaseSecondsMax).value_or(7200));
  if (const auto age = fields.integer("max_age_seconds", 0, 365 * 24 * 3600))
    wanted.max_age = std::chrono::seconds(*age);
  const double timeout = fields.number("timeout_seconds", 0, 1e9).value_or(kTimeoutDefault);
  if (!wanted.ref.empty() && !git::is_branch_name(wanted.ref) && !git::is_object_id(wanted.ref)) {
    fields.fail("ref", "is not the name of a branch or tag, nor a full commit id");
  }
  fields.finish("slot request");
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
  const Json body = request.json();
  JsonFields fields(body);
  const std::string token = lease_token(request, fields);
  fields.finish("release");
  manager_->release(request.param("id"), token);
  return net::Response::json(200,
                             Json::object({{"slot_id", request.param("id")}, {"released", true}}));
}

net::Response PoolService::heartbeat(const net::Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  const std::string token = lease_token(request, fields);
  std::optional<std::chrono::seconds> lease;
  if (const auto seconds = fields.integer("lease_seconds", 1, kLeaseSecondsMax))
    lease = std::chrono::seconds(*seconds);
  fields.finish("heartbeat");
  const SystemTime end = manager_->heartbeat(request.param("id"), token, lease);
  return net::Response::json(
      200, Json::object({{"slot_id", request.param("id")}, {"expires_at", to_rfc3339(end)}}));
}

net::Response PoolService::create_pool(const net::Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
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
  fields.finish("pool");
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
