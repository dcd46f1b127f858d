#include "necrocode/net/idempotency.hpp"

#include <algorithm>

#include "necrocode/base/digest.hpp"

namespace necrocode::net {
namespace {
/// Header fields that a request means something else by.
std::string conditions_of(const Request& request) {
  std::string conditions;
  for (const char* name : {"If-Match", "X-Lease-Token"}) {
    if (const auto value = request.headers.get(name)) {
      conditions += '\n' + std::string(name) + ": " + std::string(*value);
    }
  }
  return conditions;
}

constexpr const char* kOfAnother = "the Idempotency-Key was used for another request";
}  // namespace

std::optional<IdempotencyKey> read_idempotency_key(const Request& request) {
  const std::size_t count = request.headers.count("Idempotency-Key");
  if (count == 0) return std::nullopt;
  if (count > 1) throw HttpError(400, "Idempotency-Key is given more than once");
  const std::string_view key = *request.headers.get("Idempotency-Key");
  const bool visible =
      std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (key.empty() || key.size() > limits::kIdempotencyKeyBytes || !visible) {
    throw HttpError(400, "Idempotency-Key must be 1 to " +
                             std::to_string(limits::kIdempotencyKeyBytes) +
                             " visible ASCII characters");
  }
  // A key belongs to its route: who numbers the calls of each route anew has other requests.
  return IdempotencyKey{request.method + ' ' + request.route + '\n' + std::string(key),
                        sha256_hex(request.target + conditions_of(request) + '\n' + request.body)};
}

bool is_kept(int status) {
  if (status / 100 == 2) return status != 204;
  return status / 100 == 4 && status != 408 && status != 425 && status != 429;
}

Response key_of_another_request() {
  return problem(422, kOfAnother, {});
}

std::optional<Response> find_kept(IdempotencyStore& store, const IdempotencyKey& key) {
  auto kept = store.find(key.name);
  if (!kept) return std::nullopt;
  if (kept->fingerprint != key.fingerprint) {
    throw HttpError(422, kOfAnother);
  }
  Response response = Response::text(kept->status, std::move(kept->body), kept->content_type);
  if (!kept->etag.empty()) response.headers.set("ETag", std::move(kept->etag));
  response.headers.set("Idempotent-Replayed", "true");
  return response;
}

void keep(IdempotencyStore& store, const IdempotencyKey& key, const Response& response) {
  if (!is_kept(response.status)) return;
  store.keep(key.name,
             {key.fingerprint, response.status, response.headers.get_or("Content-Type", ""),
              response.headers.get_or("ETag", ""), std::get<std::string>(response.body)});
}

Response answer_once(const Request& request, const Transact& transact,
                     const std::function<Response()>& make) {
  const auto key = read_idempotency_key(request);
  std::optional<Response> answer;
  const auto once = [&](IdempotencyStore& store) {
    answer = key ? find_kept(store, *key) : std::nullopt;  // it may be a second run
    if (answer) return;
    answer = make();
    if (key) keep(store, *key, *answer);
  };
  try {
    transact(once);
  } catch (const std::exception& error) {
    if (!key || !is_kept(problem_status(error))) throw;
    const Response refusal = problem_for(error, request);
    transact([&](IdempotencyStore& store) { keep(store, *key, refusal); });
    throw;
  }
  return std::move(*answer);
}

namespace {

/// One request on its way through answer_once_later(), kept by what still has to happen to it.
struct Answering : std::enable_shared_from_this<Answering> {
  Request request;
  std::optional<IdempotencyKey> key;
  TransactLater transact;
  std::function<Response(const Request&)> make;
  std::shared_ptr<Parked> parked;
  std::optional<Response> answer;

  void begin() {
    transact([self = shared_from_this()](IdempotencyStore& store) { self->work(store); },
             [self = shared_from_this()](const std::exception_ptr& error) { self->end(error); });
  }

  void work(IdempotencyStore& store) {
    answer = key ? find_kept(store, *key) : std::nullopt;  // it may be a second run
    if (answer) return;
    answer = make(request);
    if (key) keep(store, *key, *answer);
  }

  void end(const std::exception_ptr& error) {
    if (error) return refuse(error);
    parked->complete(std::move(*answer));
  }

  void refuse(const std::exception_ptr& thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::exception& error) {
      answer = problem_for(error, request);
      if (!key || !is_kept(answer->status)) {
        parked->complete(std::move(*answer));
        return;
      }
    }
    transact([self = shared_from_this()](
                 IdempotencyStore& store) { keep(store, *self->key, *self->answer); },
             [self = shared_from_this()](const std::exception_ptr& error) {
               if (error) return self->fail(error);
               self->parked->complete(std::move(*self->answer));
             });
  }

  void fail(const std::exception_ptr& thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::exception& error) {
      parked->complete(problem_for(error, request));
    }
  }
};

}  // namespace

Response answer_once_later(const Request& request, TransactLater transact,
                           std::function<Response(const Request&)> make) {
  const auto answering = std::make_shared<Answering>();
  answering->key = read_idempotency_key(request);
  answering->request = request;
  answering->transact = std::move(transact);
  answering->make = std::move(make);
  ParkRequest park;
  park.timeout = kCommitTime;
  park.start = [answering](std::shared_ptr<Parked> parked) {
    answering->parked = std::move(parked);
    answering->begin();
  };
  park.on_timeout = commit_takes_too_long;
  return Response::park(std::move(park));
}

Response commit_takes_too_long() {
  Response response = problem(503, "the change is not yet on disk; it may yet be made", {});
  response.headers.set("Retry-After", "10");
  return response;
}

}  // namespace necrocode::net
