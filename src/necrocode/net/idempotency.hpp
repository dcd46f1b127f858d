// Idempotency-Key (SPEC section 3): a mutating request told again gets its first answer and has no
// second effect. The rules stand here, once; the answers stand in each domain's own database, kept
// in the transaction of the effect (IdempotencyStore).
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "necrocode/net/http_server.hpp"

namespace necrocode::net {

/// What tells one request from another.
struct IdempotencyKey {
  std::string name;  ///< method, route and the caller's key: what it is found by
  /// SHA-256 of target, If-Match, X-Lease-Token and body: what it must be the same by. Empty while
  /// a streamed body is not yet known.
  std::string fingerprint;
};

/// The request's key, or nothing when it has none. Throws HttpError 400 for one that is empty,
/// longer than limits::kIdempotencyKeyBytes or not visible ASCII, or is given twice.
std::optional<IdempotencyKey> read_idempotency_key(const Request& request);

/// The first answer as it is kept.
struct KeptAnswer {
  std::string fingerprint;  ///< of the request
  int status = 0;
  std::string content_type;
  std::string etag;
  std::string body;
};

/// The answers that one database keeps, seen inside one of its transactions.
class IdempotencyStore {
 public:
  virtual ~IdempotencyStore() = default;
  /// Nothing for one older than limits::kIdempotencyKeyTime.
  virtual std::optional<KeptAnswer> find(const std::string& name) = 0;
  /// Nothing happens when that name has an answer already.
  virtual void keep(const std::string& name, const KeptAnswer& answer) = 0;
  virtual void forget(const std::string& name) = 0;
};

/// 2xx but 204, and 4xx but 408, 425 and 429.
bool is_kept(int status);

/// The 422 of a key that was used for another request.
Response key_of_another_request();
/// The answer kept under `key`, with `Idempotent-Replayed: true`; nothing when there is none.
/// Throws HttpError 422 when it is another request's.
std::optional<Response> find_kept(IdempotencyStore& store, const IdempotencyKey& key);
/// Keeps the response, whose body is a string, if is_kept().
void keep(IdempotencyStore& store, const IdempotencyKey& key, const Response& response);

/// Runs its argument inside one durable transaction of the domain's database.
using Transact = std::function<void(const std::function<void(IdempotencyStore&)>&)>;
/// The answer to a request that may carry a key: the kept one, else what `make` answers within the
/// transaction, kept with its effect. A refusal that `make` throws has no effect; it is kept too,
/// by a transaction of its own, and comes through.
Response answer_once(const Request& request, const Transact& transact,
                     const std::function<Response()>& make);

/// The same for a database that takes many transactions into one commit: hands `work` in and
/// returns; `done` is called once when it is durable, or with what it threw.
using TransactLater = std::function<void(std::function<void(IdempotencyStore&)> work,
                                         std::function<void(std::exception_ptr)> done)>;
/// As answer_once(), parked: no thread waits for the commit. `transact` and `make` live on until
/// then, and `make` gets the request, which no longer is the handler's.
Response answer_once_later(const Request& request, TransactLater transact,
                           std::function<Response(const Request&)> make);
/// How long a commit may take until its caller is told 503, and that it may yet happen.
inline constexpr auto kCommitTime = std::chrono::seconds(60);
/// That answer.
Response commit_takes_too_long();

}  // namespace necrocode::net
