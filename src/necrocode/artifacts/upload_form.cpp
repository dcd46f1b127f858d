#include "necrocode/artifacts/upload_form.hpp"

#include <algorithm>
#include <optional>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/multipart.hpp"

namespace necrocode::artifacts {
namespace {

// The fields of one form while its pieces come in.
class FormReceiver {
 public:
  FormReceiver(std::string_view content_type, ArtifactUpload& upload)
      : reader_(content_type), upload_(upload) {
    reader_.on_part = [this](const net::MultipartPart& part) { begin(part.name); };
    reader_.on_data = [this](std::string_view bytes) { take(bytes); };
    reader_.on_part_end = [this] { part_ = Part::kNone; };
  }
  FormReceiver(const FormReceiver&) = delete;
  FormReceiver& operator=(const FormReceiver&) = delete;

  void push(std::string_view piece) { reader_.push(piece); }

  ArtifactDraft finish() {
    reader_.finish();
    std::vector<FieldError> errors;
    if (!has_file_) errors.push_back({"/file", "is required"});
    if (!type_) errors.push_back({"/type", "is required"});
    Json metadata = Json::object();
    if (metadata_ && !trim(*metadata_).empty()) {
      metadata = Json::parse(*metadata_, "metadata");
      if (metadata.is_null()) metadata = Json::object();
    }
    if (!errors.empty()) throw net::HttpError(422, "invalid upload", std::move(errors));
    return make_draft(*type_, std::move(metadata));
  }

 private:
  enum class Part { kNone, kFile, kType, kMetadata, kOther };

  void begin(const std::string& name) {
    part_ = Part::kOther;  // unknown fields are ignored
    if (name == "file") {
      if (has_file_) throw net::HttpError(422, "invalid upload", {{"/file", "is there twice"}});
      has_file_ = true;
      part_ = Part::kFile;
    } else if (name == "type") {
      begin_field(type_, Part::kType, name);
    } else if (name == "metadata") {
      begin_field(metadata_, Part::kMetadata, name);
    }
  }

  void begin_field(std::optional<std::string>& field, Part part, const std::string& name) {
    if (field) throw net::HttpError(422, "invalid upload", {{"/" + name, "is there twice"}});
    field.emplace();
    part_ = part;
  }

  void take(std::string_view bytes) {
    if (part_ == Part::kFile) {
      upload_.write(bytes);
      return;
    }
    beside_file_ += bytes.size();
    if (beside_file_ > limits::kArtifactFormBytes) {
      throw net::HttpError(413, "the form has too much beside its file");
    }
    if (part_ == Part::kType) append(*type_, bytes);
    if (part_ == Part::kMetadata) append(*metadata_, bytes);
  }

  static void append(std::string& field, std::string_view bytes) {
    if (field.size() + bytes.size() > limits::kMultipartFieldBytes) {
      throw net::HttpError(413, "a field of the form has more than " +
                                    std::to_string(limits::kMultipartFieldBytes) + " bytes");
    }
    field += bytes;
  }

  net::MultipartReader reader_;
  ArtifactUpload& upload_;
  Part part_ = Part::kNone;
  bool has_file_ = false;
  std::optional<std::string> type_;
  std::optional<std::string> metadata_;
  std::size_t beside_file_ = 0;
};

// Spec and task as the metadata names them: a full id holds both, a bare number needs the spec's
// name.
void read_place(JsonFields& fields, ArtifactDraft& draft) {
  draft.spec = fields.string("spec_name", limits::kArtifactNameBytes).value_or("");
  draft.task = fields.string("task_id", limits::kArtifactNameBytes).value_or("");
  const auto id = TaskId::parse(draft.task);
  if (!id) return;
  if (!draft.spec.empty() && draft.spec != id->spec()) {
    fields.fail("task_id", "belongs to another spec than spec_name says");
  }
  draft.spec = id->spec();
  draft.task = id->number();
}

}  // namespace

std::vector<std::string> read_tags(JsonFields& fields) {
  std::vector<std::string> tags;
  for (std::string& tag : fields.strings("tags", limits::kArtifactTags, limits::kNameBytes)) {
    if (tag.empty()) {
      fields.fail("tags", "must not hold an empty tag");
    } else if (std::find(tags.begin(), tags.end(), tag) == tags.end()) {
      tags.push_back(std::move(tag));
    }
  }
  return tags;
}

ArtifactDraft make_draft(const std::string& type, Json metadata) {
  ArtifactDraft draft;
  draft.type = type;
  JsonFields fields(metadata, "/metadata");
  if (metadata.is_object()) {
    read_place(fields, draft);
    draft.name = fields.string("name", limits::kArtifactNameBytes).value_or("");
    fields.string("mime_type", limits::kArtifactNameBytes);
    draft.tags = read_tags(fields);
  }
  std::vector<FieldError> errors = fields.errors();
  if (!is_plain_name(type)) {
    errors.push_back({"/type",
                      "must begin with a letter or digit and hold only letters, digits, "
                      "'.', '_' and '-', at most " +
                          std::to_string(limits::kNameBytes)});
  }
  if (metadata.dump().size() > limits::kMetadataBytes) {
    errors.push_back(
        {"/metadata", "must be at most " + std::to_string(limits::kMetadataBytes) + " bytes"});
  }
  if (metadata.depth() > limits::kFreeJsonDepth) {
    errors.push_back({"/metadata", "must be nested at most " +
                                       std::to_string(limits::kFreeJsonDepth) + " deep"});
  }
  if (!errors.empty()) throw net::HttpError(422, "invalid upload", std::move(errors));
  draft.metadata = std::move(metadata);
  return draft;
}

ReceivedForm receive_form(const net::Request& request, ArtifactUpload& upload, bool hash_body) {
  const std::string content_type = request.headers.get_or("Content-Type", "");
  if (!ascii_lower(trim(content_type)).starts_with("multipart/form-data")) {
    throw net::HttpError(415, "the body must be multipart/form-data");
  }
  Sha256 body_hash;
  ReceivedForm received;
  try {
    FormReceiver receiver(content_type, upload);
    for (std::string piece; !(piece = request.stream->read()).empty();) {
      if (hash_body) body_hash.update(piece);
      receiver.push(piece);
    }
    received.draft = receiver.finish();
  } catch (const InvalidResponse& error) {  // of the multipart reader, or of the metadata
    throw net::HttpError(400, "malformed form: " + error.summary());
  }
  if (hash_body) received.body_sha256 = body_hash.finish_hex();
  return received;
}

}  // namespace necrocode::artifacts
