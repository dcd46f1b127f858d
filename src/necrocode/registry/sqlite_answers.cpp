#include "necrocode/registry/sqlite_answers.hpp"

#include "necrocode/base/limits.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {

std::optional<net::KeptAnswer> SqliteAnswers::find(const std::string& name) {
  db::Statement& query = database_.prepare(
      "SELECT fingerprint, status, content_type, etag, body FROM kept_answers "
      "WHERE name = ? AND kept_ms > ?");
  query.bind(name).bind(to_unix_ms(now_ - limits::kIdempotencyKeyTime));
  if (!query.step()) return std::nullopt;
  net::KeptAnswer answer{query.text(0), static_cast<int>(query.integer(1)), query.text(2),
                         query.text(3), query.text(4)};
  query.reset();
  return answer;
}

void SqliteAnswers::keep(const std::string& name, const net::KeptAnswer& answer) {
  database_.prepare("DELETE FROM kept_answers WHERE kept_ms <= ?")
      .bind(to_unix_ms(now_ - limits::kIdempotencyKeyTime))
      .run();
  database_
      .prepare(
          "INSERT INTO kept_answers (name, fingerprint, status, content_type, etag, body, kept_ms) "
          "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING")
      .bind(name)
      .bind(answer.fingerprint)
      .bind(answer.status)
      .bind(answer.content_type)
      .bind(answer.etag)
      .bind(answer.body)
      .bind(to_unix_ms(now_))
      .run();
}

void SqliteAnswers::forget(const std::string& name) {
  database_.prepare("DELETE FROM kept_answers WHERE name = ?").bind(name).run();
}

}  // namespace necrocode::registry
