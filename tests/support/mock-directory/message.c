#include "message.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attributes.h"

long message_size(const uint8_t *data, size_t available)
{
	if (available && data[0] != LDAP_TAG_MESSAGE)
		return -1;
	if (available < 2)
		return 0;
	if (data[1] < 0x80)
		return available >= 2u + data[1] ? 2 + data[1] : 0;
	unsigned octets = data[1] & 0x7f;
	if (!octets || octets > 4)
		return -1;
	if (available < 2 + octets)
		return 0;
	size_t length = 0;
	for (unsigned i = 0; i < octets; i++)
		length = length << 8 | data[2 + i];
	if (length > MESSAGE_MAX)
		return -1;
	return available >= 2 + octets + length ? (long)(2 + octets + length) : 0;
}

BerElement *message_reader(const char *data, size_t size)
{
	BerElement *ber = ber_alloc_t(0);
	struct berval octets = { size, (char *)data };
	if (!ber)
		abort();
	ber_init2(ber, &octets, 0);
	return ber;
}

/* liblber cannot be told to stop at the end of a constructed element that lies, but it never leaves the PDU. */
struct decoder {
	BerElement *ber;
	struct arena *arena;
};

static bool take(struct decoder *decoder, struct value *ret_value)
{
	struct berval octets;
	if (ber_scanf(decoder->ber, "m", &octets) == LBER_ERROR)
		return false;
	*ret_value = (struct value){ octets.bv_val, octets.bv_len };
	return true;
}

static bool decode_filter(struct decoder *decoder, unsigned depth, struct filter **ret_filter);

static bool decode_substrings(struct decoder *decoder, struct filter *filter)
{
	ber_len_t length;
	char *last;
	struct value any[64];
	if (ber_scanf(decoder->ber, "{") == LBER_ERROR || !take(decoder, &filter->attribute))
		return false;
	for (ber_tag_t tag = ber_first_element(decoder->ber, &length, &last); tag != LBER_DEFAULT; tag = ber_next_element(decoder->ber, &length, last)) {
		struct value part;
		if (!take(decoder, &part))
			return false;
		if (tag == LDAP_SUBSTRING_INITIAL && !filter->initial.data && !filter->any_count)
			filter->initial = part;
		else if (tag == LDAP_SUBSTRING_FINAL && !filter->final.data)
			filter->final = part;
		else if (tag == LDAP_SUBSTRING_ANY && filter->any_count < 64)
			any[filter->any_count++] = part;
		else
			return false;
	}
	filter->any = arena_take(decoder->arena, sizeof any[0] * (filter->any_count + 1));
	memcpy(filter->any, any, sizeof any[0] * filter->any_count);
	return filter->initial.data || filter->final.data || filter->any_count;
}

static bool decode_extensible(struct decoder *decoder, struct filter *filter)
{
	bool valued = false;
	ber_len_t length;
	char *last;
	for (ber_tag_t tag = ber_first_element(decoder->ber, &length, &last); tag != LBER_DEFAULT; tag = ber_next_element(decoder->ber, &length, last)) {
		struct value part;
		ber_int_t ignored;
		bool good;
		valued |= tag == LDAP_FILTER_EXT_VALUE;
		if (tag == LDAP_FILTER_EXT_DNATTRS)
			good = ber_scanf(decoder->ber, "b", &ignored) != LBER_ERROR;
		else
			good = take(decoder, tag == LDAP_FILTER_EXT_OID ? &filter->rule : tag == LDAP_FILTER_EXT_TYPE ? &filter->attribute :
				tag == LDAP_FILTER_EXT_VALUE ? &filter->value : &part);
		if (!good)
			return false;
	}
	return valued;
}

static bool decode_children(struct decoder *decoder, struct filter *filter, unsigned depth)
{
	ber_len_t length;
	char *last;
	struct filter **tail = &filter->children;
	for (ber_tag_t tag = ber_first_element(decoder->ber, &length, &last); tag != LBER_DEFAULT; tag = ber_next_element(decoder->ber, &length, last)) {
		if (!decode_filter(decoder, depth + 1, tail))
			return false;
		tail = &(*tail)->next;
	}
	return true;
}

static bool decode_filter(struct decoder *decoder, unsigned depth, struct filter **ret_filter)
{
	ber_len_t length;
	struct filter *filter = arena_take(decoder->arena, sizeof *filter);
	*filter = (struct filter){ .kind = ber_peek_tag(decoder->ber, &length), .attribute = { "", 0 }, .rule = { "", 0 }, .value = { "", 0 } };
	struct berval attribute, value;
	bool good = depth < FILTER_DEPTH_MAX;
	*ret_filter = filter;
	switch (good ? filter->kind : LBER_ERROR) {
	case LDAP_FILTER_AND:
	case LDAP_FILTER_OR:
		return decode_children(decoder, filter, depth);
	case LDAP_FILTER_NOT:
		return ber_skip_tag(decoder->ber, &length) != LBER_ERROR && decode_filter(decoder, depth + 1, &filter->children);
	case LDAP_FILTER_EQUALITY:
	case LDAP_FILTER_GE:
	case LDAP_FILTER_LE:
	case LDAP_FILTER_APPROX:
		if (ber_scanf(decoder->ber, "{mm}", &attribute, &value) == LBER_ERROR)
			return false;
		filter->attribute = (struct value){ attribute.bv_val, attribute.bv_len };
		filter->value = (struct value){ value.bv_val, value.bv_len };
		break;
	case LDAP_FILTER_PRESENT:
		good = take(decoder, &filter->attribute);
		break;
	case LDAP_FILTER_SUBSTRINGS:
		good = decode_substrings(decoder, filter);
		break;
	case LDAP_FILTER_EXT:
		good = decode_extensible(decoder, filter);
		break;
	default:
		return false;
	}
	filter->row = good ? attribute_find(filter->attribute) : NULL;
	return good;
}

static bool decode_bind(struct decoder *decoder, struct request *request)
{
	ber_int_t version;
	ber_len_t length;
	if (ber_scanf(decoder->ber, "{i", &version) == LBER_ERROR || !take(decoder, &request->name))
		return false;
	request->version = version;
	request->method = ber_peek_tag(decoder->ber, &length);
	if (request->method == LDAP_AUTH_SIMPLE)
		return take(decoder, &request->password) && ber_scanf(decoder->ber, "}") != LBER_ERROR;
	return request->method == LDAP_AUTH_SASL && ber_scanf(decoder->ber, "x}") != LBER_ERROR;
}

/* A sequence or set of octet strings. */
static bool decode_strings(struct decoder *decoder, struct values *values)
{
	ber_len_t length;
	char *last;
	values->arena = decoder->arena;
	for (ber_tag_t tag = ber_first_element(decoder->ber, &length, &last); tag != LBER_DEFAULT; tag = ber_next_element(decoder->ber, &length, last)) {
		struct value value;
		if (tag != LBER_OCTETSTRING || !take(decoder, &value))
			return false;
		values_add(values, value.data, value.size);
	}
	return true;
}

static bool decode_search(struct decoder *decoder, struct request *request)
{
	ber_int_t scope, deref, size_limit, time_limit, types_only;
	if (ber_scanf(decoder->ber, "{") == LBER_ERROR || !take(decoder, &request->name)
	    || ber_scanf(decoder->ber, "eeiib", &scope, &deref, &size_limit, &time_limit, &types_only) == LBER_ERROR)
		return false;
	if (scope < 0 || scope > 2 || size_limit < 0)
		return false;
	request->scope = scope;
	request->size_limit = size_limit;
	request->types_only = types_only;
	return decode_filter(decoder, 0, &request->filter) && decode_strings(decoder, &request->attributes) && ber_scanf(decoder->ber, "}") != LBER_ERROR;
}

static bool decode_modify(struct decoder *decoder, struct request *request)
{
	ber_len_t length;
	char *last;
	size_t capacity = 0;
	if (ber_scanf(decoder->ber, "{") == LBER_ERROR || !take(decoder, &request->name))
		return false;
	for (ber_tag_t tag = ber_first_element(decoder->ber, &length, &last); tag != LBER_DEFAULT; tag = ber_next_element(decoder->ber, &length, last)) {
		ber_int_t operation;
		if (request->modification_count == capacity) {
			struct modification *more = arena_take(decoder->arena, (capacity + 8) * 2 * sizeof *more);
			if (capacity)
				memcpy(more, request->modifications, capacity * sizeof *more);
			request->modifications = more;
			capacity = (capacity + 8) * 2;
		}
		struct modification *modification = &request->modifications[request->modification_count++];
		*modification = (struct modification){ 0 };
		if (ber_scanf(decoder->ber, "{e{", &operation) == LBER_ERROR || !take(decoder, &modification->attribute)
		    || operation < 0 || operation > 3 || !decode_strings(decoder, &modification->values) || ber_scanf(decoder->ber, "}}") == LBER_ERROR)
			return false;
		modification->operation = operation;
	}
	return ber_scanf(decoder->ber, "}") != LBER_ERROR;
}

static bool decode_extended(struct decoder *decoder, struct request *request)
{
	ber_len_t length;
	ber_tag_t tag;
	if (ber_scanf(decoder->ber, "{") == LBER_ERROR || ber_peek_tag(decoder->ber, &length) != LDAP_TAG_EXOP_REQ_OID || !take(decoder, &request->name))
		return false;
	tag = ber_peek_tag(decoder->ber, &length);
	if (tag == LDAP_TAG_EXOP_REQ_VALUE && ber_scanf(decoder->ber, "x") == LBER_ERROR)
		return false;
	return ber_scanf(decoder->ber, "}") != LBER_ERROR;
}

static bool decode_controls(struct decoder *decoder, struct request *request)
{
	ber_len_t length;
	char *last;
	struct control controls[32];
	for (ber_tag_t tag = ber_first_element(decoder->ber, &length, &last); tag != LBER_DEFAULT; tag = ber_next_element(decoder->ber, &length, last)) {
		if (request->control_count == 32)
			return false;
		struct control *control = &controls[request->control_count++];
		*control = (struct control){ 0 };
		if (ber_scanf(decoder->ber, "{") == LBER_ERROR || !take(decoder, &control->oid))
			return false;
		ber_int_t critical;
		if (ber_peek_tag(decoder->ber, &length) == LBER_BOOLEAN) {
			if (ber_scanf(decoder->ber, "b", &critical) == LBER_ERROR)
				return false;
			control->critical = critical;
		}
		if (ber_peek_tag(decoder->ber, &length) == LBER_OCTETSTRING) {
			control->has_value = true;
			if (!take(decoder, &control->value))
				return false;
		}
		if (ber_scanf(decoder->ber, "}") == LBER_ERROR)
			return false;
	}
	request->controls = arena_take(decoder->arena, sizeof controls[0] * (request->control_count + 1));
	memcpy(request->controls, controls, sizeof controls[0] * request->control_count);
	return true;
}

static bool decode_operation(struct decoder *decoder, struct request *request)
{
	ber_len_t length;
	ber_int_t abandoned;
	request->operation = ber_peek_tag(decoder->ber, &length);
	switch (request->operation) {
	case LDAP_REQ_BIND:
		return decode_bind(decoder, request);
	case LDAP_REQ_SEARCH:
		return decode_search(decoder, request);
	case LDAP_REQ_MODIFY:
		return decode_modify(decoder, request);
	case LDAP_REQ_EXTENDED:
		return decode_extended(decoder, request);
	case LDAP_REQ_ABANDON:
		if (ber_scanf(decoder->ber, "i", &abandoned) == LBER_ERROR)
			return false;
		request->abandoned = abandoned;
		return true;
	case LDAP_REQ_UNBIND:
	case LDAP_REQ_ADD:
	case LDAP_REQ_DELETE:
	case LDAP_REQ_RENAME:
	case LDAP_REQ_COMPARE:
		return ber_scanf(decoder->ber, "x") != LBER_ERROR;
	default:
		return false;
	}
}

static bool decode_message(struct decoder *decoder, struct request *request)
{
	ber_len_t length;
	ber_int_t id;
	if (ber_scanf(decoder->ber, "{i", &id) == LBER_ERROR || id < 0 || !decode_operation(decoder, request))
		return false;
	request->id = id;
	ber_tag_t tag = ber_peek_tag(decoder->ber, &length);
	return tag == LBER_DEFAULT || (tag == LDAP_TAG_CONTROLS && decode_controls(decoder, request));
}

bool message_decode(struct arena *arena, const uint8_t *pdu, size_t size, struct request *ret_request)
{
	/* liblber writes a NUL behind each value that it gives in place: one octet more than the PDU. */
	char *copy = arena_take(arena, size + 1);
	memcpy(copy, pdu, size);
	copy[size] = 0;
	struct decoder decoder = { .ber = message_reader(copy, size), .arena = arena };
	*ret_request = (struct request){ .name = { "", 0 }, .attributes.arena = arena };
	bool good = decode_message(&decoder, ret_request);
	ber_free(decoder.ber, 0);
	return good;
}

void answer_set(struct answer *answer, int code, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(answer->text, sizeof answer->text, format, arguments);
	va_end(arguments);
	answer->code = code;
	answer->text_size = length <= 0 ? 0 : (size_t)length >= sizeof answer->text ? sizeof answer->text : (size_t)length + 1;
}

ber_tag_t message_response_tag(ber_tag_t request)
{
	static const struct { ber_tag_t request, response; } rows[] = {
		{ LDAP_REQ_BIND, LDAP_RES_BIND }, { LDAP_REQ_SEARCH, LDAP_RES_SEARCH_RESULT }, { LDAP_REQ_MODIFY, LDAP_RES_MODIFY }, { LDAP_REQ_ADD, LDAP_RES_ADD },
		{ LDAP_REQ_DELETE, LDAP_RES_DELETE }, { LDAP_REQ_RENAME, LDAP_RES_RENAME }, { LDAP_REQ_COMPARE, LDAP_RES_COMPARE }, { LDAP_REQ_EXTENDED, LDAP_RES_EXTENDED },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].request == request)
			return rows[i].response;
	return 0;
}

static BerElement *begin(void)
{
	BerElement *ber = ber_alloc_t(LBER_USE_DER);
	if (!ber)
		abort();
	return ber;
}

static void finish(BerElement *ber, struct evbuffer *out)
{
	struct berval octets;
	if (ber_flatten2(ber, &octets, 0) == -1)
		abort();
	evbuffer_add(out, octets.bv_val, octets.bv_len);
	ber_free(ber, 1);
}

static void put_answer(BerElement *ber, const struct answer *answer)
{
	const char *matched = answer->matched ? answer->matched : "";
	ber_printf(ber, "eso", (ber_int_t)answer->code, matched, answer->text, (ber_len_t)answer->text_size);
	if (answer->referral)
		ber_printf(ber, "t{s}", (ber_tag_t)LDAP_TAG_REFERRAL, answer->referral);
}

static void put_paged(BerElement *ber, const struct value *cookie)
{
	BerElement *inner = begin();
	struct berval octets;
	ber_printf(inner, "{io}", (ber_int_t)0, cookie->data, (ber_len_t)cookie->size);
	if (ber_flatten2(inner, &octets, 0) == -1)
		abort();
	ber_printf(ber, "t{{sO}}", (ber_tag_t)LDAP_TAG_CONTROLS, LDAP_CONTROL_PAGEDRESULTS, &octets);
	ber_free(inner, 1);
}

void message_put_result(struct evbuffer *out, int id, ber_tag_t tag, const struct answer *answer, const struct value *paged)
{
	BerElement *ber = begin();
	ber_printf(ber, "{it{", (ber_int_t)id, tag);
	put_answer(ber, answer);
	ber_printf(ber, "}");
	if (paged)
		put_paged(ber, paged);
	ber_printf(ber, "}");
	finish(ber, out);
}

void message_put_extended(struct evbuffer *out, int id, const struct answer *answer, const char *name, const struct value *value)
{
	BerElement *ber = begin();
	ber_printf(ber, "{it{", (ber_int_t)id, (ber_tag_t)LDAP_RES_EXTENDED);
	put_answer(ber, answer);
	if (name)
		ber_printf(ber, "ts", (ber_tag_t)LDAP_TAG_EXOP_RES_OID, name);
	if (value)
		ber_printf(ber, "to", (ber_tag_t)LDAP_TAG_EXOP_RES_VALUE, value->data, (ber_len_t)value->size);
	ber_printf(ber, "}}");
	finish(ber, out);
}

void message_put_reference(struct evbuffer *out, int id, const char *url)
{
	BerElement *ber = begin();
	ber_printf(ber, "{it{s}}", (ber_int_t)id, (ber_tag_t)LDAP_RES_SEARCH_REFERENCE, url);
	finish(ber, out);
}

void message_put_entry(struct evbuffer *out, int id, const char *dn, const struct entry_attribute *attributes, size_t count, bool types_only)
{
	BerElement *ber = begin();
	ber_printf(ber, "{it{s{", (ber_int_t)id, (ber_tag_t)LDAP_RES_SEARCH_ENTRY, dn);
	for (size_t i = 0; i < count; i++) {
		ber_printf(ber, "{o[", attributes[i].name.data, (ber_len_t)attributes[i].name.size);
		for (size_t j = 0; !types_only && j < attributes[i].values.count; j++)
			ber_printf(ber, "o", attributes[i].values.items[j].data, (ber_len_t)attributes[i].values.items[j].size);
		ber_printf(ber, "]}");
	}
	ber_printf(ber, "}}}");
	finish(ber, out);
}
