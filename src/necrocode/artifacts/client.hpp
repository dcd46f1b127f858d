// ArtifactStoreClient: uploads to and downloads from the Artifact Store over HTTP. Flat memory for
// files of any size. Nothing is ever asked of another origin than the store's.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/net/service_caller.hpp"

namespace necrocode {

/// What the store says of one artifact.
struct ArtifactInfo {
  std::string uri;               ///< what download() takes
  std::string id;                ///< never given twice
  std::string type;              ///< "diff", "log", "test" …
  std::string spec_name;         ///< empty when unknown
  std::string task_id;           ///< empty when unknown
  std::string name;              ///< as it was given, else the id
  std::uint64_t size_bytes = 0;  ///< of an open log, so far
  std::string sha256;            ///< lower-case hex; empty for an open log
  SystemTime created_at;
  Json metadata;
  std::vector<std::string> tags;
  bool sealed = true;  ///< false: a log that can be appended to
  /// Throws InvalidResponse.
  static ArtifactInfo from_json(const Json& json);
};

/// Which artifacts to list; empty fields select all.
struct ArtifactQuery {
  std::string spec;
  std::string task;  ///< its full id, or with `spec` its number
  std::string type;
  std::string tag;
  int limit = 100;     ///< of a page; at most limits::kPageSizeMax
  std::string cursor;  ///< the last page's next_cursor
};
/// One page of artifacts.
struct ArtifactPage {
  std::vector<ArtifactInfo> items;
  std::optional<std::string> next_cursor;  ///< nothing: this was the last
};

/// Thread-safe. Every call throws what ServiceCaller::call() documents; an answer whose size or
/// digest differs from what was sent is ArtifactUploadError, a download that differs
/// InvalidResponse.
class ArtifactStoreClient {
 public:
  static constexpr const char* kDefaultUrl = "http://127.0.0.1:8000";
  static constexpr std::chrono::seconds kDefaultTimeout{60};  ///< an artifact is large
  static constexpr std::chrono::seconds kDefaultLease{120};   ///< of a log
  /// Both throw ConfigError for a URL or token that cannot be used; see ServiceOptions.
  explicit ArtifactStoreClient(const std::string& base_url = kDefaultUrl);
  explicit ArtifactStoreClient(net::ServiceOptions options);  ///< kDefaultTimeout unless set

  /// `metadata`: an object; task_id, spec_name, name, mime_type and tags are understood. The uri.
  std::string upload(const std::string& type, std::string_view content,
                     const Json& metadata = Json::object(), const CallContext& context = {});
  /// The same as text/plain in UTF-8, unless `metadata` names another mime_type.
  std::string upload_text(const std::string& type, std::string_view text,
                          const Json& metadata = Json::object(), const CallContext& context = {});
  /// A regular file of any size, streamed. StorageError when it cannot be read.
  std::string upload_file(const std::string& type, const std::filesystem::path& file,
                          const Json& metadata = Json::object(), const CallContext& context = {});
  /// The regular file behind `fd`, whole, whatever its position; the caller keeps it. `metadata`
  /// may give its name.
  std::string upload_fd(const std::string& type, int fd, const Json& metadata = Json::object(),
                        const CallContext& context = {});
  /// What `content` gives, at flat memory; it is rewound before every further attempt.
  std::string upload_stream(const std::string& type, std::shared_ptr<net::BodySource> content,
                            const Json& metadata = Json::object(), const CallContext& context = {});
  /// Like upload(), with all that the store answered.
  ArtifactInfo put(const std::string& type, std::string_view content,
                   const Json& metadata = Json::object(), const CallContext& context = {});

  /// Begins an empty log, an artifact that grows until it is sealed: by seal_log(), or by the store
  /// when nothing was appended for `lease` (from 1 s to 1 h; an empty append renews it). It
  /// replaces an artifact of the same spec, task, type and name at once, and is replaced likewise.
  ArtifactInfo open_log(const std::string& type, const Json& metadata = Json::object(),
                        std::chrono::seconds lease = kDefaultLease,
                        const CallContext& context = {});
  /// Appends `bytes` at `offset`, the number of bytes that were appended before; at most
  /// limits::kHttpRequestBodyBytes. The log's size then, which is more when others append too.
  /// Told twice it has one effect: what the log has already is only compared. Conflict when the log
  /// ends before `offset` (the store's machine crashed) or has other bytes there, or is sealed:
  /// get_metadata() tells which, and the size to go on from. NotFound when it was removed or
  /// replaced. Once it returns, the death of any process loses none of the bytes.
  std::uint64_t append_log(const std::string& uri, std::uint64_t offset, std::string_view bytes,
                           const CallContext& context = {});
  /// The same, perhaps with no bytes, and then seals: the artifact as it stays. Told twice it has
  /// one effect, too.
  ArtifactInfo seal_log(const std::string& uri, std::uint64_t offset, std::string_view bytes = {},
                        const CallContext& context = {});
  /// Gives `on_bytes` the artifact's bytes from `offset` on, and what is appended as it comes, on
  /// the caller's thread: true when it was sealed and all is given; false when `on_bytes` said
  /// false or the context ended. An answer that breaks off is taken up again where it broke off.
  /// NotFound when the log is removed or replaced.
  bool follow(const std::string& uri, const std::function<bool(std::string_view)>& on_bytes,
              const CallContext& context = {}, std::uint64_t offset = 0);

  /// `uri` as the store gave it, or its path. SecurityError, before anything is sent, for any other
  /// scheme than http and https and for another origin than the store's; redirects are followed
  /// within that origin (at most limits::kHttpRedirects), another one is a ServiceError. At most
  /// limits::kHttpResponseBodyBytes; checked against the answer's digest when it has one.
  std::string download(const std::string& uri, const CallContext& context = {});
  /// The same; the bytes are not checked to be UTF-8.
  std::string download_text(const std::string& uri, const CallContext& context = {});
  /// `size` bytes from `offset` on, fewer at the artifact's end; ServiceError (416) when it ends
  /// before `offset`, InvalidResponse from a store that knows no ranges.
  std::string download_part(const std::string& uri, std::uint64_t offset, std::uint64_t size,
                            const CallContext& context = {});
  /// Like download(), of any size; the file appears whole or not at all. After a cut only the rest
  /// is asked for, if the store named the bytes it was sending (a strong ETag). StorageError when
  /// it cannot be written.
  void download_to(const std::string& uri, const std::filesystem::path& file,
                   const CallContext& context = {});
  /// Of the artifact with that uri; only its path is compared.
  ArtifactInfo get_metadata(const std::string& uri, const CallContext& context = {});
  /// One page of the artifacts that `query` selects.
  ArtifactPage list(const ArtifactQuery& query = {}, const CallContext& context = {});
  /// NotFound when there is none (any more).
  void remove(const std::string& id, const CallContext& context = {});
  /// Once, without retries, within the health timeout. Never throws.
  net::HealthStatus health_check();

  const std::string& base_url() const { return caller_.base_url(); }

 private:
  net::ServiceCaller caller_;
};

/// The name existing programs call it by.
using NewArtifactStoreClient = ArtifactStoreClient;

}  // namespace necrocode
