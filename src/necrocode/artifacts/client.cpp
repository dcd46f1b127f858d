#include "necrocode/artifacts/client.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/body_sources.hpp"
#include "necrocode/net/multipart.hpp"

namespace necrocode {
namespace {

namespace fs = std::filesystem;

constexpr const char* kService = "artifact-store";
constexpr std::size_t kTargetBytes = 200;  // of a uri, in errors and logs
// A proxy may cut what is silent for longer.
constexpr std::chrono::seconds kFollowSilence{20};
constexpr std::chrono::seconds kFollowPause{1};

net::ServiceOptions options_for(const std::string& base_url) {
  net::ServiceOptions options;
  options.base_url = base_url;
  return options;
}

ErrorInfo error_info(std::string operation, std::string_view target) {
  ErrorInfo info;
  info.service = kService;
  info.operation = std::move(operation);
  info.target = printable(shorten(target, kTargetBytes));
  return info;
}

// Hashes what goes out, so that the store's answer can be held against it. sha256() is for after
// the call.
class HashingBody final : public net::BodySource {
 public:
  explicit HashingBody(std::shared_ptr<net::BodySource> inner) : inner_(std::move(inner)) {}
  std::size_t read(char* buffer, std::size_t size) override {
    const std::size_t got = inner_->read(buffer, size);
    hash_.update({buffer, got});
    return got;
  }
  std::uint64_t size() const override { return inner_->size(); }
  void rewind() override {
    inner_->rewind();
    hash_ = Sha256();
  }
  std::string sha256() { return hash_.finish_hex(); }

 private:
  std::shared_ptr<net::BodySource> inner_;
  Sha256 hash_;
};

ArtifactInfo send_form(const net::ServiceCaller& caller, const std::string& operation,
                       const std::string& type, const std::string& file_name,
                       std::shared_ptr<net::BodySource> content, const Json& metadata,
                       const CallContext& context) {
  if (!metadata.is_object() && !metadata.is_null()) {
    ErrorInfo info = error_info(operation, type);
    info.fields.push_back({"/metadata", "must be an object"});
    throw TaskContextValidationError("invalid artifact", std::move(info));
  }
  const auto hashed = std::make_shared<HashingBody>(std::move(content));
  net::MultipartForm form;
  form.fields = {{"type", type}, {"metadata", metadata.is_null() ? "{}" : metadata.dump()}};
  form.file_name = file_name;
  form.content = hashed;
  const std::uint64_t size = hashed->size();
  net::EncodedMultipart encoded = net::encode_multipart(std::move(form));

  net::ServiceCall call;
  call.operation = operation;
  call.target = type;
  call.method = "POST";
  call.path = "/artifacts";
  call.headers.set("Content-Type", encoded.content_type);
  call.body_source = encoded.body;
  ArtifactInfo answer = ArtifactInfo::from_json(caller.call_json(call, context));
  const std::string sha256 = hashed->sha256();
  if (answer.size_bytes != size || answer.sha256 != sha256) {
    throw ArtifactUploadError(
        "the store holds other bytes than were sent: " + std::to_string(answer.size_bytes) +
            " bytes with SHA-256 " + printable(shorten(answer.sha256, 64)) + " instead of " +
            std::to_string(size) + " with " + sha256,
        error_info(operation, answer.uri));
  }
  return answer;
}

std::shared_ptr<net::BodySource> whole_file(FileDescriptor fd, const std::string& name) {
  struct stat found = {};
  if (::fstat(fd.get(), &found) != 0) throw_errno("cannot look at", name);
  if (!S_ISREG(found.st_mode)) throw StorageError(name + " is not a regular file");
  return net::file_body(std::move(fd), 0, static_cast<std::uint64_t>(found.st_size));
}

// The path to ask the store for. Refused before anything is sent: whatever is not this store's.
// Nothing but the path is taken from the uri, so a request cannot go anywhere else.
std::string path_in_store(const std::string& base_url, const std::string& uri,
                          const std::string& operation) {
  const auto refuse = [&](const char* why) -> std::string {
    // Of a foreign uri only the beginning up to its path is told, and no user information.
    const bool quiet = uri.find('@') != std::string::npos;
    throw SecurityError(std::string("refused to ask the store: ") + why,
                        error_info(operation, quiet ? "a uri with user information" : uri));
  };
  const auto base = net::Url::parse(base_url);
  if (!base) return refuse("the store's own URL cannot be read");
  if (uri.starts_with('/') && !uri.starts_with("//")) {
    if (!net::is_valid_header("X", uri) || uri.find(' ') != std::string::npos) {
      return refuse("not a uri");
    }
    return uri.substr(0, uri.find('#'));
  }
  const auto url = net::Url::parse(uri);
  if (!url) return refuse("not an http or https URL");
  if (!url->user_info.empty()) return refuse("it holds user information");
  // One machine has several names for itself; they are one store all the same.
  const bool same_host = url->host == base->host || (url->is_loopback() && base->is_loopback());
  if (url->scheme != base->scheme || url->port != base->port || !same_host) {
    return refuse("another origin than the store's");
  }
  const std::string prefix = base->path == "/" ? std::string() : base->path;
  if (!url->path.starts_with(prefix + "/")) return refuse("outside of the store");
  return url->path.substr(prefix.size());
}

net::ServiceCall download_call(const std::string& base_url, const std::string& uri,
                               const std::string& operation) {
  net::ServiceCall call;
  call.operation = operation;
  call.path = path_in_store(base_url, uri, operation);
  call.target = printable(shorten(call.path, kTargetBytes));
  call.headers.set("Accept", "*/*");
  call.redirects_max = limits::kHttpRedirects;
  return call;
}

/// Of an operation of the log behind `uri`, with bytes that begin at `offset`.
net::ServiceCall log_call(const std::string& base_url, const std::string& uri,
                          const std::string& operation, const std::string& step,
                          std::uint64_t offset, std::string_view bytes) {
  net::ServiceCall call;
  call.operation = operation;
  const std::string path = path_in_store(base_url, uri, operation);
  call.target = printable(shorten(path, kTargetBytes));
  call.method = "POST";
  call.path = path + "/" + step + "?offset=" + std::to_string(offset);
  call.headers.set("Content-Type", "application/octet-stream");
  call.raw_body = bytes;
  return call;
}

[[noreturn]] void refuse_download(const net::HttpResponse& response, const net::ServiceCall& call,
                                  const std::string& why) {
  ErrorInfo info = error_info(call.operation, call.target);
  info.status = response.status;
  throw InvalidResponse(why, std::move(info));
}

// `sha256`: of the whole artifact.
void check_digest(const net::HttpResponse& response, const std::string& sha256,
                  const net::ServiceCall& call) {
  auto field = response.headers.get("Repr-Digest");
  // Of this message's bytes, which are all of it only then.
  if (!field && response.status == 200) field = response.headers.get("Content-Digest");
  const auto announced = field ? sha256_from_digest_header(*field) : std::nullopt;
  if (announced && *announced != sha256) {
    refuse_download(
        response, call,
        "the downloaded bytes have SHA-256 " + sha256 + ", announced was " + *announced);
  }
}

/// `bytes FIRST-LAST/SIZE`; nothing for any other form.
struct Part {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::uint64_t size = 0;
};
std::optional<Part> read_content_range(const net::HttpResponse& response) {
  const std::string field = response.headers.get_or("Content-Range", "");
  constexpr std::string_view kUnit = "bytes ";
  if (response.status != 206 || !field.starts_with(kUnit)) return std::nullopt;
  const std::string_view text = std::string_view(field).substr(kUnit.size());
  const std::size_t dash = text.find('-');
  const std::size_t slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash) {
    return std::nullopt;
  }
  const auto first = parse_uint(text.substr(0, dash));
  const auto last = parse_uint(text.substr(dash + 1, slash - dash - 1));
  const auto size = parse_uint(text.substr(slash + 1));
  if (!first || !last || !size || *last < *first || *last >= *size) return std::nullopt;
  return Part{*first, *last, *size};
}

constexpr const char* kNotTheBytes = "the store did not answer with the bytes";

// A file that appears under its name only when it is whole.
class DownloadFile {
 public:
  explicit DownloadFile(const fs::path& target)
      : target_(target),
        folder_(target.has_parent_path() ? target.parent_path() : fs::path(".")),
        temporary_(folder_ / (".necrocode-download-" + random_hex(8))),
        file_(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) {
    if (!file_) throw_errno("cannot create", temporary_.string());
  }
  DownloadFile(const DownloadFile&) = delete;
  DownloadFile& operator=(const DownloadFile&) = delete;
  ~DownloadFile() {
    if (!committed_) ::unlink(temporary_.c_str());
  }

  // What these throw is what the call throws.
  // An answer begins: with the rest that was asked for, or from the first byte.
  void begin(const net::HttpResponse& head) {
    const auto part = read_content_range(head);
    // All of the rest, of the same bytes.
    goes_on_ = part && part->first == size_ && part->last + 1 == part->size && !etag_.empty() &&
               head.headers.get_or("ETag", "") == etag_;
    whole_size_ = goes_on_ ? part->size : 0;
    if (goes_on_) return;
    etag_ = head.status == 200 ? head.headers.get_or("ETag", "") : "";
    if (etag_.starts_with("W/")) etag_.clear();  // other bytes may have it, too
    if (size_ > 0) restart();
  }
  bool take(std::string_view piece) {
    write_all(file_.get(), piece);
    hash_.update(piece);
    size_ += piece.size();
    return true;
  }

  // The rest, of the same bytes, if it is known which they were.
  void ask_for_rest(net::Headers& headers) const {
    headers.erase("Range");
    headers.erase("If-Range");
    if (etag_.empty() || size_ == 0) return;
    headers.set("Range", "bytes=" + std::to_string(size_) + "-");
    headers.set("If-Range", etag_);
  }
  bool is_whole(const net::HttpResponse& response) const {
    return response.status == 200 || (response.status == 206 && goes_on_ && size_ == whole_size_);
  }
  std::string sha256() { return hash_.finish_hex(); }

  void commit() {
    if (::fsync(file_.get()) != 0) throw_errno("cannot sync", temporary_.string());
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
      throw_errno("cannot replace", target_.string());
    }
    committed_ = true;
    fsync_directory(folder_);
  }

 private:
  void restart() {
    hash_ = Sha256();
    size_ = 0;
    if (::ftruncate(file_.get(), 0) != 0 || ::lseek(file_.get(), 0, SEEK_SET) != 0) {
      throw_errno("cannot begin again", temporary_.string());
    }
  }

  const fs::path target_;
  const fs::path folder_;
  const fs::path temporary_;
  FileDescriptor file_;
  Sha256 hash_;
  std::uint64_t size_ = 0;        // so far
  std::string etag_;              // of the bytes so far; empty: unknown
  bool goes_on_ = false;          // the answer is the rest,
  std::uint64_t whole_size_ = 0;  // of an artifact of that size
  bool committed_ = false;
};

std::string query_text(const ArtifactQuery& query) {
  std::string text = "?limit=" + std::to_string(query.limit);
  const std::pair<const char*, const std::string*> filters[] = {{"spec", &query.spec},
                                                                {"task", &query.task},
                                                                {"type", &query.type},
                                                                {"tag", &query.tag},
                                                                {"cursor", &query.cursor}};
  for (const auto& [name, value] : filters) {
    if (!value->empty()) text += std::string("&") + name + "=" + percent_encode(*value);
  }
  return text;
}

[[noreturn]] void invalid_answer(std::vector<FieldError> fields) {
  ErrorInfo info = error_info("", "");
  info.fields = std::move(fields);
  throw InvalidResponse("the answer does not describe an artifact", std::move(info));
}

}  // namespace

ArtifactInfo ArtifactInfo::from_json(const Json& json) {
  JsonFields fields(json);
  ArtifactInfo info;
  info.uri = fields.required_string("uri");
  info.id = fields.required_string("id");
  info.type = fields.string("type").value_or("");
  info.spec_name = fields.string("spec_name").value_or("");
  info.task_id = fields.string("task_id").value_or("");
  info.name = fields.string("name").value_or("");
  if (!fields.has("size_bytes")) fields.fail("size_bytes", "is required");
  info.size_bytes = static_cast<std::uint64_t>(fields.integer("size_bytes", 0).value_or(0));
  info.sealed = fields.boolean("sealed").value_or(true);
  if (info.sealed) info.sha256 = ascii_lower(fields.required_string("sha256"));
  if (!fields.has("created_at")) fields.fail("created_at", "is required");
  info.created_at = fields.time("created_at").value_or(SystemTime{});
  info.metadata = fields.object("metadata");
  info.tags = fields.strings("tags");
  if (!fields.errors().empty()) invalid_answer(fields.errors());
  return info;
}

ArtifactStoreClient::ArtifactStoreClient(const std::string& base_url)
    : ArtifactStoreClient(options_for(base_url)) {}

ArtifactStoreClient::ArtifactStoreClient(net::ServiceOptions options)
    : caller_(kService, std::move(options), kDefaultTimeout) {}

std::string ArtifactStoreClient::upload(const std::string& type, std::string_view content,
                                        const Json& metadata, const CallContext& context) {
  return send_form(caller_, "upload", type, "file", net::memory_body(std::string(content)),
                   metadata, context)
      .uri;
}

std::string ArtifactStoreClient::upload_text(const std::string& type, std::string_view text,
                                             const Json& metadata, const CallContext& context) {
  Json described = metadata;
  if (described.is_object() && !described.find("mime_type")) {
    described.set("mime_type", "text/plain; charset=utf-8");
  }
  return send_form(caller_, "upload_text", type, "file", net::memory_body(std::string(text)),
                   described, context)
      .uri;
}

std::string ArtifactStoreClient::upload_file(const std::string& type, const fs::path& file,
                                             const Json& metadata, const CallContext& context) {
  FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) throw_errno("cannot open", file.string());
  return send_form(caller_, "upload_file", type, file.filename().string(),
                   whole_file(std::move(fd), file.string()), metadata, context)
      .uri;
}

std::string ArtifactStoreClient::upload_fd(const std::string& type, int fd, const Json& metadata,
                                           const CallContext& context) {
  FileDescriptor own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) throw_errno("cannot use", "the descriptor");
  return send_form(caller_, "upload_fd", type, "file", whole_file(std::move(own), "the descriptor"),
                   metadata, context)
      .uri;
}

std::string ArtifactStoreClient::upload_stream(const std::string& type,
                                               std::shared_ptr<net::BodySource> content,
                                               const Json& metadata, const CallContext& context) {
  return send_form(caller_, "upload_stream", type, "file", std::move(content), metadata, context)
      .uri;
}

ArtifactInfo ArtifactStoreClient::put(const std::string& type, std::string_view content,
                                      const Json& metadata, const CallContext& context) {
  return send_form(caller_, "put", type, "file", net::memory_body(std::string(content)), metadata,
                   context);
}

ArtifactInfo ArtifactStoreClient::open_log(const std::string& type, const Json& metadata,
                                           std::chrono::seconds lease, const CallContext& context) {
  net::ServiceCall call;
  call.operation = "open_log";
  call.target = type;
  call.method = "POST";
  call.path = "/artifacts/logs";
  call.body = Json::object(
      {{"type", type}, {"metadata", metadata}, {"lease_seconds", std::int64_t{lease.count()}}});
  return ArtifactInfo::from_json(caller_.call_json(call, context));
}

std::uint64_t ArtifactStoreClient::append_log(const std::string& uri, std::uint64_t offset,
                                              std::string_view bytes, const CallContext& context) {
  const auto call = log_call(base_url(), uri, "append_log", "append", offset, bytes);
  const auto size = caller_.call_json(call, context)["size_bytes"].as_int();
  if (!size || *size < 0 || static_cast<std::uint64_t>(*size) < offset + bytes.size()) {
    throw ArtifactUploadError("the store does not say that it has the bytes",
                              error_info(call.operation, call.target));
  }
  return static_cast<std::uint64_t>(*size);
}

ArtifactInfo ArtifactStoreClient::seal_log(const std::string& uri, std::uint64_t offset,
                                           std::string_view bytes, const CallContext& context) {
  const auto call = log_call(base_url(), uri, "seal_log", "seal", offset, bytes);
  ArtifactInfo info = ArtifactInfo::from_json(caller_.call_json(call, context));
  if (!info.sealed || info.size_bytes < offset + bytes.size()) {
    throw ArtifactUploadError("the store does not say that it has the bytes, sealed",
                              error_info(call.operation, call.target));
  }
  return info;
}

// A store that stops ends its answers whole, as the seal does: only what it says of the log tells
// the two apart. It is asked to end an answer in silence, so that a standstill means a failure.
bool ArtifactStoreClient::follow(const std::string& uri,
                                 const std::function<bool(std::string_view)>& on_bytes,
                                 const CallContext& context, std::uint64_t offset) {
  bool wanted = true;
  bool moved = false;
  net::ServiceCall call = download_call(base_url(), uri, "follow");
  const std::string path = call.path;
  call.extra_time = kFollowSilence;
  call.on_body = [&](std::string_view piece) {
    moved = true;
    offset += piece.size();
    return wanted = on_bytes(piece);
  };
  try {
    while (true) {
      moved = false;
      call.path = path + "?follow=1&wait_seconds=" + std::to_string(kFollowSilence.count()) +
                  "&offset=" + std::to_string(offset);
      try {
        caller_.call(call, context);
      } catch (const Unavailable&) {
        if (!wanted) return false;
        if (!moved) throw;
      }
      const ArtifactInfo info = get_metadata(uri, context);
      if (info.sealed && info.size_bytes == offset) return true;
      if (!moved) real_clock().sleep_for(kFollowPause, context.stop);
    }
  } catch (const TimeoutError&) {
    if (context.cancelled() || context.expired()) return false;
    throw;
  }
}

std::string ArtifactStoreClient::download(const std::string& uri, const CallContext& context) {
  const net::ServiceCall call = download_call(base_url(), uri, "download");
  net::HttpResponse response = caller_.call(call, context);
  if (response.status != 200) refuse_download(response, call, kNotTheBytes);
  check_digest(response, sha256_hex(response.body), call);
  return std::move(response.body);
}

std::string ArtifactStoreClient::download_part(const std::string& uri, std::uint64_t offset,
                                               std::uint64_t size, const CallContext& context) {
  net::ServiceCall call = download_call(base_url(), uri, "download_part");
  if (size == 0) return {};
  const std::string first = std::to_string(offset);
  // The last byte that a range can name.
  const std::uint64_t last =
      offset + std::min(size - 1, INT64_MAX - std::min<std::uint64_t>(offset, INT64_MAX));
  call.headers.set("Range", "bytes=" + first + "-" + std::to_string(last));
  net::HttpResponse response = caller_.call(call, context);
  const auto part = read_content_range(response);
  // Less than was asked for only at the artifact's end.
  if (!part || part->first != offset || part->last - part->first + 1 != response.body.size() ||
      response.body.size() > size ||
      (response.body.size() < size && part->last + 1 != part->size)) {
    refuse_download(response, call, "the store did not answer with the part that was asked for");
  }
  return std::move(response.body);
}

std::string ArtifactStoreClient::download_text(const std::string& uri, const CallContext& context) {
  return download(uri, context);
}

void ArtifactStoreClient::download_to(const std::string& uri, const fs::path& file,
                                      const CallContext& context) {
  net::ServiceCall call = download_call(base_url(), uri, "download_to");
  DownloadFile target(file);
  call.on_head = [&target](const net::HttpResponse& head) { target.begin(head); };
  call.on_body = [&target](std::string_view piece) { return target.take(piece); };
  call.on_restart = [&target](net::Headers& headers) { target.ask_for_rest(headers); };
  net::HttpResponse response;
  try {
    response = caller_.call(call, context);
  } catch (const ServiceError& error) {
    // It was cut behind its last byte: there is no rest.
    if (error.info().status != 416) throw;
    response = caller_.call(call, context);
  }
  if (!target.is_whole(response)) refuse_download(response, call, kNotTheBytes);
  check_digest(response, target.sha256(), call);
  target.commit();
}

ArtifactInfo ArtifactStoreClient::get_metadata(const std::string& uri, const CallContext& context) {
  net::ServiceCall call;
  call.operation = "get_metadata";
  call.target = printable(shorten(uri, kTargetBytes));
  call.path = "/artifacts/metadata?uri=" + percent_encode(uri);
  call.redirects_max = limits::kHttpRedirects;
  return ArtifactInfo::from_json(caller_.call_json(call, context));
}

ArtifactPage ArtifactStoreClient::list(const ArtifactQuery& query, const CallContext& context) {
  net::ServiceCall call;
  call.operation = "list";
  call.path = "/artifacts" + query_text(query);
  const Json answer = caller_.call_json(call, context);
  if (!answer["items"].is_array()) invalid_answer({{"/items", "is required"}});
  ArtifactPage page;
  for (const Json& item : answer["items"].items())
    page.items.push_back(ArtifactInfo::from_json(item));
  if (const auto cursor = answer["next_cursor"].as_string())
    page.next_cursor = std::string(*cursor);
  return page;
}

void ArtifactStoreClient::remove(const std::string& id, const CallContext& context) {
  net::ServiceCall call;
  call.operation = "remove";
  call.target = printable(shorten(id, kTargetBytes));
  call.method = "DELETE";
  call.path = "/artifacts/" + percent_encode(id);
  caller_.call(call, context);
}

net::HealthStatus ArtifactStoreClient::health_check() {
  return caller_.health_check("artifacts");
}

}  // namespace necrocode
