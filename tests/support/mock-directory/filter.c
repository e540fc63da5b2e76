#include "filter.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "identity.h"

#define RULE_BIT_AND "1.2.840.113556.1.4.803"
#define RULE_BIT_OR "1.2.840.113556.1.4.804"
#define RULE_IN_CHAIN "1.2.840.113556.1.4.1941"

static bool number_of(struct value value, int64_t *ret_number)
{
	char copy[32], *end;
	if (!value.size || value.size >= sizeof copy)
		return false;
	memcpy(copy, value.data, value.size);
	copy[value.size] = 0;
	*ret_number = strtoll(copy, &end, 10);
	return !*end;
}

static bool same_octets(struct value a, struct value b)
{
	return a.size == b.size && !memcmp(a.data, b.data, a.size);
}

/* A category may be written as its name in the schema or as the class's short name; "user" has the category of "person". */
static bool category_equal(const struct view *view, struct value value, struct value assertion)
{
	struct value last = { value.data + 3, 0 };
	if (memchr(assertion.data, '=', assertion.size))
		return text_equal(view->arena, value, assertion);
	if (value_is(assertion, "user"))
		assertion = VALUE("person");
	for (size_t i = 0; i < CLASS_COUNT; i++) {
		last.size = strlen(class_rows[i].category);
		if (value_is(assertion, class_rows[i].short_category) && value.size > last.size + 3 && value_is(last, class_rows[i].category) && value.data[3 + last.size] == ',')
			return true;
	}
	return false;
}

static bool value_equal(enum syntax syntax, const struct view *view, struct value value, struct value assertion)
{
	uint8_t octets[28];
	int64_t a, b;
	size_t size;
	switch (syntax) {
	case SYNTAX_OCTETS:
		return same_octets(value, assertion);
	case SYNTAX_GUID:
		return same_octets(value, assertion) || (assertion.size == 36 && guid_from_text(assertion, octets) && !memcmp(octets, value.data, 16));
	case SYNTAX_SID:
		size = sid_from_text(assertion, octets);
		return same_octets(value, assertion) || (size && same_octets(value, (struct value){ (const char *)octets, size }));
	case SYNTAX_INTEGER:
		return number_of(value, &a) && number_of(assertion, &b) && a == b;
	case SYNTAX_CATEGORY:
		return category_equal(view, value, assertion);
	case SYNTAX_NAME:
	case SYNTAX_TEXT:
		return text_equal(view->arena, value, assertion);
	}
	return false;
}

static enum match match_equality(const struct filter *filter, const struct view *view, struct object *object)
{
	struct values values = { .arena = view->arena };
	struct value assertion = filter->value;
	attribute_values(filter->row, view, object, &values);
	if (filter->row->syntax == SYNTAX_NAME) {
		bool bad;
		const struct object *named = forest_resolve(view->forest, view->arena, assertion, &bad);
		if (bad)
			return MATCH_UNDEFINED;
		if (named)
			assertion = value_of(named->dn);
	}
	for (size_t i = 0; i < values.count; i++)
		if (value_equal(filter->row->syntax, view, values.items[i], assertion))
			return MATCH_TRUE;
	return MATCH_FALSE;
}

static enum match match_order(const struct filter *filter, const struct view *view, struct object *object)
{
	struct values values = { .arena = view->arena };
	attribute_values(filter->row, view, object, &values);
	for (size_t i = 0; i < values.count; i++) {
		int64_t a, b;
		int order;
		if (filter->row->syntax == SYNTAX_INTEGER) {
			if (!number_of(values.items[i], &a) || !number_of(filter->value, &b))
				return MATCH_UNDEFINED;
			order = a < b ? -1 : a > b;
		} else {
			struct value x = text_fold(view->arena, values.items[i]), y = text_fold(view->arena, filter->value);
			order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
			order = order ? order : x.size < y.size ? -1 : x.size > y.size;
		}
		if (filter->kind == LDAP_FILTER_GE ? order >= 0 : order <= 0)
			return MATCH_TRUE;
	}
	return MATCH_FALSE;
}

static bool substrings_in(const struct filter *filter, struct arena *arena, struct value value)
{
	struct value text = text_fold(arena, value);
	if (filter->initial.data) {
		struct value part = text_fold(arena, filter->initial);
		if (text.size < part.size || memcmp(text.data, part.data, part.size))
			return false;
		text.data += part.size;
		text.size -= part.size;
	}
	for (size_t i = 0; i < filter->any_count; i++) {
		struct value part = text_fold(arena, filter->any[i]);
		const char *found = memmem(text.data, text.size, part.data, part.size);
		if (!found)
			return false;
		text.size -= (size_t)(found + part.size - text.data);
		text.data = found + part.size;
	}
	if (!filter->final.data)
		return true;
	struct value part = text_fold(arena, filter->final);
	return text.size >= part.size && !memcmp(text.data + text.size - part.size, part.data, part.size);
}

static enum match match_substrings(const struct filter *filter, const struct view *view, struct object *object)
{
	struct values values = { .arena = view->arena };
	if (filter->row->syntax != SYNTAX_TEXT)
		return MATCH_UNDEFINED;
	attribute_values(filter->row, view, object, &values);
	for (size_t i = 0; i < values.count; i++)
		if (substrings_in(filter, view->arena, values.items[i]))
			return MATCH_TRUE;
	return MATCH_FALSE;
}

static enum match match_extensible(const struct filter *filter, const struct view *view, struct object *object)
{
	struct values values = { .arena = view->arena };
	bool all = value_is(filter->rule, RULE_BIT_AND);
	if (all || value_is(filter->rule, RULE_BIT_OR)) {
		int64_t bits, number;
		attribute_values(filter->row, view, object, &values);
		if (!number_of(filter->value, &bits))
			return MATCH_UNDEFINED;
		for (size_t i = 0; i < values.count; i++)
			if (number_of(values.items[i], &number) && (all ? (number & bits) == bits : (number & bits) != 0))
				return MATCH_TRUE;
		return MATCH_FALSE;
	}
	if (!value_is(filter->rule, RULE_IN_CHAIN) || filter->row->syntax != SYNTAX_NAME)
		return MATCH_UNDEFINED;
	bool bad;
	struct object *other = forest_resolve(view->forest, view->arena, filter->value, &bad);
	if (!other)
		return bad ? MATCH_UNDEFINED : MATCH_FALSE;
	/* memberOf knows nothing of the primary group, nor does its chain. */
	if (!strcmp(filter->row->name, "memberOf"))
		return forest_is_member(view->forest, object, other, false) ? MATCH_TRUE : MATCH_FALSE;
	if (!strcmp(filter->row->name, "member"))
		return forest_is_member(view->forest, other, object, false) ? MATCH_TRUE : MATCH_FALSE;
	return MATCH_FALSE;
}

static enum match match_present(const struct filter *filter, const struct view *view, struct object *object)
{
	struct values values = { .arena = view->arena };
	if (!strcmp(filter->row->name, "objectClass"))
		return MATCH_TRUE;
	attribute_values(filter->row, view, object, &values);
	return values.count ? MATCH_TRUE : MATCH_FALSE;
}

static enum match match_set(const struct filter *filter, const struct view *view, struct object *object)
{
	bool all = filter->kind == LDAP_FILTER_AND;
	enum match result = all ? MATCH_TRUE : MATCH_FALSE;
	for (const struct filter *child = filter->children; child; child = child->next) {
		enum match match = filter_match(child, view, object);
		if (match == (all ? MATCH_FALSE : MATCH_TRUE))
			return match;
		if (match == MATCH_UNDEFINED)
			result = MATCH_UNDEFINED;
	}
	return result;
}

enum match filter_match(const struct filter *filter, const struct view *view, struct object *object)
{
	if (filter->kind == LDAP_FILTER_AND || filter->kind == LDAP_FILTER_OR)
		return match_set(filter, view, object);
	if (filter->kind == LDAP_FILTER_NOT) {
		enum match match = filter_match(filter->children, view, object);
		return match == MATCH_UNDEFINED ? match : match == MATCH_TRUE ? MATCH_FALSE : MATCH_TRUE;
	}
	if (!filter->row || (filter->row->flags & (CONSTRUCTED | SECRET)))
		return MATCH_UNDEFINED;
	switch (filter->kind) {
	case LDAP_FILTER_EQUALITY:
	case LDAP_FILTER_APPROX:
		return match_equality(filter, view, object);
	case LDAP_FILTER_GE:
	case LDAP_FILTER_LE:
		return match_order(filter, view, object);
	case LDAP_FILTER_SUBSTRINGS:
		return match_substrings(filter, view, object);
	case LDAP_FILTER_EXT:
		return match_extensible(filter, view, object);
	default:
		return match_present(filter, view, object);
	}
}
