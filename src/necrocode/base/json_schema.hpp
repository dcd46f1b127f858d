// Words for JSON Schemas (2020-12) written by hand: those of answers. What is read has its schema
// from its reader (describe_fields in json_fields.hpp).
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/json.hpp"

namespace necrocode::schema {

Json text();
Json time();  ///< RFC 3339
Json integer();
Json number();
Json boolean();
/// Any JSON object: metadata, data.
Json free_object();
/// One of these strings.
Json choice(const std::vector<std::string>& values);
Json list(Json items);
/// An object whose members all have such values.
Json map(Json values);
Json or_null(Json schema);
/// The schema that has this name in the same document.
Json ref(std::string_view name);
/// An object that has `always`, may have `sometimes`, and has nothing else today.
Json object(std::initializer_list<JsonMember> always,
            std::initializer_list<JsonMember> sometimes = {});
/// `object`, which has `always` too.
Json with(Json object, std::initializer_list<JsonMember> always);
/// A page of a list.
Json page(Json items);

}  // namespace necrocode::schema
