// Recorder: a proxy in front of a model service that writes what it sees as a cassette. The client
// is given its address instead of the service's, and any key; the real key is added on the way out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "necrocode/base/masking.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/llm/cassette.hpp"
#include "necrocode/llm/replay_dialects.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::llm {

struct RecorderOptions {
  std::string endpoint;  ///< of the real service, as LLMConfig::endpoint
  Secret api_key;        ///< empty: none is added, and the client's own goes no further
  /// The cassette. One that is there is kept, and continued.
  std::filesystem::path out;
  std::shared_ptr<const Masker> masker = std::make_shared<const Masker>();
  std::shared_ptr<net::HttpClient> http = net::shared_http_client();
  net::HttpServerOptions server;
};

/// Passes on POST to model_routes() and GET /v1/models. A path below /v1 is taken below the
/// endpoint, any other on the endpoint's host; the query goes along. Requests and answers go
/// through unchanged but for what belongs to a connection, the key, Accept-Encoding, which is left
/// out so that answers come as text, and the answer's X-Request-Id, which becomes
/// X-Upstream-Request-Id; a streamed answer goes on as it comes. A request that says it is a web
/// page's (Origin) is refused with 403: no page shall spend the key.
///
/// Each answered POST becomes an entry for one time: `match` has the request's model and, of what
/// is new in it (after the model's last turn), the whole text when it is short, else its first, its
/// longest and its last line. An answer that broke off is written as a cut drill; one that the
/// client left before its finish, that the cassette has no room for, or that is larger than 16 MiB,
/// is left out. All texts pass the masker first, and a line that holds a secret is no condition.
/// The file is replaced as a whole after each exchange and before the client sees the end of its
/// answer: whoever reads it, after kill -9 too, finds a valid cassette.
///
/// Thread-safe. At most 16 exchanges at once, 64 more wait; above that 503.
class Recorder {
 public:
  struct Counts {
    std::int64_t recorded = 0;
    std::int64_t left_out = 0;  ///< answers that are in no entry
  };

  /// Throws ConfigError for an endpoint that is none or a cassette that is broken, SecurityError
  /// for a key that would go over plain http to another machine, StorageError for a file that
  /// cannot be read or written.
  explicit Recorder(RecorderOptions options);
  ~Recorder();  ///< stop()
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  /// Throws ConfigError when the address cannot be bound.
  void start();
  /// Safe to call twice. Ends the exchanges under way.
  void stop();
  /// http://127.0.0.1:PORT/v1, what the client takes as its endpoint.
  std::string url() const;
  Counts counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The conditions under which an entry for `question` is found again, without secrets.
CassetteMatch recorded_match(const Question& question, const Masker& masker);
/// `entry` with every text masked.
CassetteEntry masked(CassetteEntry entry, const Masker& masker);

}  // namespace necrocode::llm
