// ApiDocument: an OpenAPI document, and what of an exchange is not as it says. The checker knows
// the part of JSON Schema that our documents use, and says so when it meets another word.
#pragma once

#include <algorithm>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::test {

struct HttpMessage {
  std::string method, target;  ///< of a request
  int status = 0;              ///< of an answer
  net::Headers headers;
  std::string body;
  bool whole = true;  ///< false: of an answer that was cut off, or is a feed
};

class ApiDocument {
 public:
  explicit ApiDocument(Json document) : document_(std::move(document)) {}
  const Json& json() const { return document_; }

  /// What is wrong, each a line; empty when all is as declared.
  std::vector<std::string> check(const HttpMessage& request, const HttpMessage& answer) {
    std::vector<std::string> wrong;
    const std::string path = request.target.substr(0, request.target.find('?'));
    const std::string method = request.method == "HEAD" ? "get" : ascii_lower(request.method);
    const Json operation = find(path, method);
    if (operation.is_null()) {
      if (answer.status < 400) wrong.push_back("is no operation");
      return wrong;
    }
    if (answer.status == 500) wrong.push_back("answers 500");
    used_.insert(operation["operationId"].string_or(""));
    check_answer(request, answer, operation, wrong);
    // What was taken must have been as declared; what was refused may be anything.
    if (answer.status / 100 == 2) check_request(request, operation, wrong);
    return wrong;
  }
  /// The ids of all operations that check() has met.
  const std::set<std::string>& used() const { return used_; }
  std::set<std::string> all() const {
    std::set<std::string> ids;
    for (const auto& [path, methods] : document_["paths"].members()) {
      for (const auto& [method, operation] : methods.members()) {
        ids.insert(operation["operationId"].string_or(""));
      }
    }
    return ids;
  }
  /// `strict`: members that are not declared are wrong too.
  void validate(const Json& value, const Json& schema, const std::string& at, bool strict,
                std::vector<std::string>& wrong) const {
    const auto fail = [&](const std::string& message) { wrong.push_back(at + " " + message); };
    for (const auto& [word, argument] : schema.members()) {
      if (word == "$ref") {
        const std::string name(last_part(argument.string_or("")));
        const Json* target = document_["components"]["schemas"].find(name);
        if (!target) return fail("refers to nothing: " + name);
        validate(value, document_["components"]["schemas"][name], at, strict, wrong);
      } else if (word == "anyOf") {
        const bool any =
            std::any_of(argument.items().begin(), argument.items().end(), [&](const Json& one) {
              std::vector<std::string> inner;
              validate(value, one, at, strict, inner);
              return inner.empty();
            });
        if (!any) fail("is none of what it may be: " + shorten(value.dump(), 200));
      } else if (word == "type") {
        const Json::Array types = argument.is_array() ? argument.items() : Json::Array{argument};
        if (std::none_of(types.begin(), types.end(),
                         [&](const Json& type) { return has_type(value, type.string_or("")); })) {
          fail("is " + std::string(value.type_name()) + ", not " + argument.dump());
        }
      } else if (word == "enum") {
        const Json::Array& known = argument.items();
        if (!value.is_null() && std::find(known.begin(), known.end(), value) == known.end()) {
          fail("is none of " + argument.dump());
        }
      } else if (word == "properties") {
        for (const auto& [name, member] : value.members()) {
          if (const Json* declared = argument.find(name)) {
            validate(member, *declared, at + "/" + name, strict, wrong);
          } else if (strict && schema["additionalProperties"].is_null()) {
            fail("has what is not declared: " + name);
          }
        }
      } else if (word == "required") {
        for (const Json& name : argument.items()) {
          if (value.is_object() && !value.find(name.string_or(""))) fail("lacks " + name.dump());
        }
      } else if (word == "additionalProperties") {
        if (!argument.is_object()) continue;
        for (const auto& [name, member] : value.members()) {
          validate(member, argument, at + "/" + name, strict, wrong);
        }
      } else if (word == "items") {
        std::size_t index = 0;
        for (const Json& item : value.items()) {
          validate(item, argument, at + "/" + std::to_string(index++), strict, wrong);
        }
      } else if (word == "description") {
        continue;  // for people
      } else if (word == "format") {
        static const std::regex time(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)");
        if (strict && value.is_string() && !std::regex_match(value.string_or(""), time)) {
          fail("is no time as answers tell it: " + value.dump());
        }
      } else if (word == "maxItems") {
        if (value.items().size() > bound(argument)) fail("has too many elements");
      } else if (word == "maxLength") {
        if (value.string_or("").size() > bound(argument)) fail("is too long");
      } else if (word == "minLength") {
        if (value.is_string() && value.string_or("").size() < bound(argument)) fail("is too short");
      } else if (word == "minimum") {
        if (value.is_number() && *value.as_double() < *argument.as_double()) fail("is too small");
      } else if (word == "maximum") {
        if (value.is_number() && *value.as_double() > *argument.as_double()) fail("is too large");
      } else {
        fail("has a schema with an unknown word: " + word);
      }
    }
  }

 private:
  static std::size_t bound(const Json& argument) {
    return static_cast<std::size_t>(argument.as_double().value_or(0));
  }
  static std::string_view last_part(std::string_view text) {
    return text.substr(text.rfind('/') + 1);
  }
  static bool has_type(const Json& value, const std::string& type) {
    if (type == "string") return value.is_string();
    if (type == "integer") return value.is_int();
    if (type == "number") return value.is_number();
    if (type == "boolean") return value.is_bool();
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    return type == "null" && value.is_null();
  }
  static std::string media_type(const HttpMessage& message) {
    const std::string type = message.headers.get_or("Content-Type", "");
    return ascii_lower(trim(type.substr(0, type.find(';'))));
  }

  /// The most literal path that has the method.
  Json find(const std::string& path, const std::string& method) const {
    const auto given = split(path, '/');
    Json best;
    std::size_t fewest = SIZE_MAX;
    for (const auto& [pattern, methods] : document_["paths"].members()) {
      const auto wanted = split(pattern, '/');
      std::size_t parameters = 0;
      const bool same = std::equal(wanted.begin(), wanted.end(), given.begin(), given.end(),
                                   [&](std::string_view a, std::string_view b) {
                                     const bool any = a.starts_with('{');
                                     parameters += any ? 1 : 0;
                                     return any ? !b.empty() : a == b;
                                   });
      if (!same || parameters >= fewest || !methods.find(method)) continue;
      fewest = parameters;
      best = methods[method];
    }
    return best;
  }

  void check_answer(const HttpMessage& request, const HttpMessage& answer, const Json& operation,
                    std::vector<std::string>& wrong) const {
    // The server's own refusals, of any request.
    static const std::set<int> own = {408, 417, 431, 501, 505, 507};
    const Json* declared = operation["responses"].find(std::to_string(answer.status));
    if (!declared && own.contains(answer.status)) {
      declared = operation["responses"].find("default");
    }
    if (!declared) return wrong.push_back("answers what is not declared");
    if (!answer.headers.get("X-Request-Id")) wrong.push_back("answers without X-Request-Id");
    for (const auto& [name, header] : (*declared)["headers"].members()) {
      if (!answer.headers.get(name)) wrong.push_back("answers without " + name);
    }
    const Json& content = (*declared)["content"];
    if (content.is_null()) {
      if (!answer.body.empty()) wrong.push_back("answers with a body");
      return;
    }
    const std::string type = media_type(answer);
    for (const auto& [name, media] : content.members()) {
      const std::string plain(trim(name.substr(0, name.find(';'))));
      if (plain != type && plain != "*/*") continue;
      if (!type.ends_with("json") || request.method == "HEAD" || !answer.whole || plain == "*/*") {
        return;
      }
      const auto body = Json::try_parse(answer.body);
      if (!body) return wrong.push_back("answers what is no JSON");
      return validate(*body, media["schema"], "answer", true, wrong);
    }
    wrong.push_back("answers an undeclared media type: " + type);
  }

  void check_request(const HttpMessage& request, const Json& operation,
                     std::vector<std::string>& wrong) const {
    check_query(request, operation, wrong);
    const Json& declared = operation["requestBody"];
    if (declared.is_null()) {
      if (!trim(request.body).empty() && trim(request.body) != "{}") {
        wrong.push_back("took a body that is not declared");
      }
      return;
    }
    const Json* media = declared["content"].find("application/json");
    if (!media || !request.whole) return;
    const Json body = Json::try_parse(request.body).value_or(Json::object());
    validate(body, (*media)["schema"], "request", false, wrong);
  }

  void check_query(const HttpMessage& request, const Json& operation,
                   std::vector<std::string>& wrong) const {
    std::set<std::string> given;
    const std::size_t question = request.target.find('?');
    if (question != std::string::npos) {
      for (const std::string_view part :
           split(std::string_view(request.target).substr(question + 1), '&')) {
        const std::string name(part.substr(0, part.find('=')));
        const std::size_t equals = part.find('=');
        const std::string text = equals == std::string_view::npos
                                     ? ""
                                     : percent_decode(part.substr(equals + 1)).value_or("");
        given.insert(name);
        for (const Json& parameter : operation["parameters"].items()) {
          if (parameter["in"] != Json("query") || parameter["name"] != Json(name)) continue;
          const Json& schema = parameter["schema"];
          Json value(text);
          if (schema["type"] == Json("array")) value = Json::Array{value};
          if (const auto number = parse_int(text); number && schema["type"] == Json("integer")) {
            value = *number;
          }
          validate(value, schema, "query " + name, false, wrong);
        }
      }
    }
    for (const Json& parameter : operation["parameters"].items()) {
      if (parameter["required"] == Json(true) && parameter["in"] == Json("query") &&
          !given.contains(parameter["name"].string_or(""))) {
        wrong.push_back("was taken without " + parameter["name"].dump());
      }
    }
  }

  Json document_;
  std::set<std::string> used_;
};

}  // namespace necrocode::test
