#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "filter.h"
#include "server.h"

#define DOMAIN_SCOPE "1.2.840.113556.1.4.1339"
#define PAGE_MAX 1000

static bool wanted(const struct values *attributes, const char *name)
{
	bool all = !attributes->count;
	for (size_t i = 0; i < attributes->count; i++)
		all |= value_is(attributes->items[i], "*") || value_is(attributes->items[i], name);
	return all;
}

/* rootDSE's attributes are collected as a list of name and values. */
struct listing {
	const struct request *request;
	struct arena *arena;
	struct entry_attribute items[32];
	size_t count;
	struct values nowhere; /* for those that were not asked for */
};

static struct values *list(struct listing *listing, const char *name)
{
	listing->nowhere = (struct values){ .arena = listing->arena };
	if (!wanted(&listing->request->attributes, name))
		return &listing->nowhere;
	struct entry_attribute *item = &listing->items[listing->count++];
	*item = (struct entry_attribute){ value_of(name), { .arena = listing->arena } };
	return &item->values;
}

static void list_text(struct listing *listing, const char *name, const char *text)
{
	values_add_text(list(listing, name), text);
}

static void list_names(struct listing *listing, const struct forest *forest)
{
	const char *schema = arena_printf(listing->arena, "CN=Schema,%s", forest->configuration->dn);
	list_text(listing, "defaultNamingContext", forest->domain->dn);
	list_text(listing, "rootDomainNamingContext", forest->domain->dn);
	list_text(listing, "configurationNamingContext", forest->configuration->dn);
	list_text(listing, "schemaNamingContext", schema);
	struct values *contexts = list(listing, "namingContexts");
	values_add_text(contexts, forest->domain->dn);
	values_add_text(contexts, forest->configuration->dn);
	values_add_text(contexts, schema);
	list_text(listing, "dnsHostName", forest->host);
	list_text(listing, "dsServiceName", forest->ntds->dn);
	list_text(listing, "serverName", forest->server->dn);
	list_text(listing, "ldapServiceName", arena_printf(listing->arena, "%s:%s$@%s", forest->dns_name, forest->server_name, forest->dns_name));
}

static void list_state(struct listing *listing, const struct server *server)
{
	const struct forest *forest = server->forest;
	time_t now = (time_t)(forest_now(forest) / TICKS_PER_SECOND - SECONDS_1601_TO_1970);
	struct tm tm;
	gmtime_r(&now, &tm);
	char *text = arena_take(listing->arena, 32);
	strftime(text, 32, "%Y%m%d%H%M%S.0Z", &tm);
	list_text(listing, "currentTime", text);
	list_text(listing, "highestCommittedUSN", arena_printf(listing->arena, "%" PRIu64, forest->usn));
	list_text(listing, "isSynchronized", forest->unsynchronized ? "FALSE" : "TRUE");
	list_text(listing, "isGlobalCatalogReady", "TRUE");
	list_text(listing, "domainFunctionality", "7");
	list_text(listing, "forestFunctionality", "7");
	list_text(listing, "domainControllerFunctionality", "7");
}

/* Whom the server takes the connection for: only where it is asked for by name (MS-ADTS 3.1.1.3.2). */
static void list_token(struct listing *listing, struct operation *operation)
{
	static const uint8_t well_known[][16] = { { 1, 1, 0, 0, 0, 0, 0, 1 }, { 1, 1, 0, 0, 0, 0, 0, 5, 11 }, { 1, 1, 0, 0, 0, 0, 0, 5, 15 }, { 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x2a, 2 } };
	struct view view = operation_view(operation);
	bool asked = false;
	for (size_t i = 0; i < listing->request->attributes.count; i++)
		asked |= value_is(listing->request->attributes.items[i], "tokenGroups");
	if (!asked || !view.who)
		return;
	struct values *values = list(listing, "tokenGroups");
	values_add(values, view.who->sid, view.who->sid_size);
	attribute_values(attribute_find(VALUE("tokenGroups")), &view, view.who, values);
	for (size_t i = 0; i < 4; i++)
		values_add_copy(values, well_known[i], i < 3 ? 12 : 16);
}

void root_dse_perform(struct operation *operation)
{
	const struct server *server = operation->server;
	struct listing listing = { .request = operation->request, .arena = &operation->server->arena };
	list_names(&listing, server->forest);
	list_state(&listing, server);
	list_token(&listing, operation);
	struct values *values = list(&listing, "supportedLDAPVersion");
	values_add_text(values, "3");
	values_add_text(values, "2");
	values = list(&listing, "supportedControl");
	for (const char *const *oid = controls_supported; *oid; oid++)
		if (controls_offered(server, *oid))
			values_add_text(values, *oid);
	static const char *const capabilities[] = { "1.2.840.113556.1.4.800", "1.2.840.113556.1.4.1670", "1.2.840.113556.1.4.1791", "1.2.840.113556.1.4.1935",
		"1.2.840.113556.1.4.2080", "1.2.840.113556.1.4.2237" };
	values = list(&listing, "supportedCapabilities");
	for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++)
		values_add_text(values, capabilities[i]);
	if (server->forest->read_only)
		values_add_text(values, "1.2.840.113556.1.4.1920");
	static const char *const mechanisms[] = { "GSSAPI", "GSS-SPNEGO", "EXTERNAL", "DIGEST-MD5" };
	values = list(&listing, "supportedSASLMechanisms");
	for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++)
		values_add_text(values, mechanisms[i]);
	values = list(&listing, "supportedExtension");
	values_add_text(values, LDAP_EXOP_WHO_AM_I);
	message_put_entry(operation->out, operation->request->id, "", listing.items, listing.count, operation->request->types_only);
	operation_answer(operation, &(struct answer){ 0 });
}

/* One entry's attributes, in the names' spelling of the schema. */
static void put_entry(struct operation *operation, const struct view *view, struct object *object)
{
	const struct request *request = operation->request;
	const struct values *attributes = &request->attributes;
	bool all = !attributes->count;
	size_t count = 0;
	struct entry_attribute *items = arena_take(view->arena, sizeof *items * (attribute_row_count + attributes->count + 1));
	for (size_t i = 0; i < attributes->count; i++) {
		const struct attribute_row *row = attribute_find(attributes->items[i]);
		struct entry_attribute *item = &items[count];
		all |= value_is(attributes->items[i], "*");
		*item = (struct entry_attribute){ attributes->items[i], { .arena = view->arena } };
		attribute_values(row, view, object, &item->values);
		if (row && item->name.size == strlen(row->name))
			item->name = value_of(row->name);
		count += item->values.count > 0;
	}
	size_t asked = count;
	for (size_t i = 0; all && i < attribute_row_count; i++) {
		struct entry_attribute *item = &items[count];
		bool twice = attribute_rows[i].flags & (CONSTRUCTED | SECRET);
		for (size_t j = 0; j < asked; j++)
			twice |= value_is(items[j].name, attribute_rows[i].name);
		if (twice)
			continue;
		*item = (struct entry_attribute){ value_of(attribute_rows[i].name), { .arena = view->arena } };
		attribute_values(&attribute_rows[i], view, object, &item->values);
		count += item->values.count > 0;
	}
	message_put_entry(operation->out, request->id, object->dn, items, count, request->types_only);
}

static bool in_scope(const struct object *object, const struct object *base, int scope)
{
	if (scope == LDAP_SCOPE_BASE)
		return object == base;
	if (object->configuration != base->configuration)
		return false;
	if (scope == LDAP_SCOPE_ONELEVEL)
		return !strcmp(name_parent(object->folded), base->folded);
	return name_is_below(object->folded, base->folded);
}

static bool asks_base_only(const struct request *request)
{
	for (size_t i = 0; i < request->attributes.count; i++) {
		const struct attribute_row *row = attribute_find(request->attributes.items[i]);
		if (row && (row->flags & BASE_ONLY))
			return true;
	}
	return false;
}

/* The other naming contexts below the domain's head (RFC 4511 4.5.3). */
static void put_references(struct operation *operation)
{
	const struct forest *forest = operation->server->forest;
	struct arena *arena = &operation->server->arena;
	const char *scheme = operation->encrypted ? "ldaps" : "ldap";
	static const char *const zones[] = { "ForestDnsZones", "DomainDnsZones" };
	for (size_t i = 0; i < 2; i++)
		message_put_reference(operation->out, operation->request->id, arena_printf(arena, "%s://%s.%s/DC=%s,%s", scheme, zones[i], forest->dns_name, zones[i], forest->domain->dn));
	message_put_reference(operation->out, operation->request->id, arena_printf(arena, "%s://%s/%s", scheme, forest->dns_name, forest->configuration->dn));
}

/* Paged results (RFC 2696): the cookie is the index of the next object to look at. */
struct page {
	bool asked;
	size_t limit, start;
	struct value cookie;
};

static struct page read_page(const struct request *request)
{
	const struct control *control = controls_find(request, LDAP_CONTROL_PAGEDRESULTS);
	struct page page = { .limit = PAGE_MAX, .cookie = { "", 0 } };
	if (!control || !control->has_value)
		return page;
	BerElement *ber = message_reader(control->value.data, control->value.size);
	struct berval cookie;
	ber_int_t size;
	bool good = ber_scanf(ber, "{im}", &size, &cookie) != LBER_ERROR;
	ber_free(ber, 0);
	if (!good)
		return page;
	page.asked = true;
	if (size > 0 && size < PAGE_MAX)
		page.limit = (size_t)size;
	for (size_t i = 0; i < cookie.bv_len && i < 6; i++)
		page.start = page.start * 10 + (size_t)(cookie.bv_val[i] - '0') % 10;
	return page;
}

static int put_entries(struct operation *operation, struct object *base, struct page *page)
{
	const struct request *request = operation->request;
	struct forest *forest = operation->server->forest;
	struct view view = operation_view(operation);
	size_t found = 0;
	for (size_t i = page->start; i < forest->count; i++) {
		struct object *object = request->scope == LDAP_SCOPE_BASE ? base : forest->objects[i];
		bool hit = in_scope(object, base, request->scope) && filter_match(request->filter, &view, object) == MATCH_TRUE;
		if (hit && request->size_limit && found == (size_t)request->size_limit)
			return LDAP_SIZELIMIT_EXCEEDED;
		if (hit && found == page->limit) {
			page->cookie = value_of(arena_printf(&operation->server->arena, "%zu", i));
			return page->asked ? LDAP_SUCCESS : LDAP_SIZELIMIT_EXCEEDED;
		}
		if (hit) {
			put_entry(operation, &view, object);
			found++;
		}
		if (request->scope == LDAP_SCOPE_BASE)
			break;
	}
	return LDAP_SUCCESS;
}

void search_perform(struct operation *operation)
{
	const struct request *request = operation->request;
	struct forest *forest = operation->server->forest;
	struct answer answer = { 0 };
	struct page page = read_page(request);
	bool bad = false, hints;
	struct object *base = NULL;
	if (controls_check(operation, &answer, &hints) && !request->name.size && request->scope == LDAP_SCOPE_BASE) {
		root_dse_perform(operation);
		return;
	}
	if (answer.code) {
	} else if (!*operation->bound) {
		answer_unbound(&answer);
	} else if (!(base = forest_resolve(forest, &operation->server->arena, request->name, &bad))) {
		answer_no_object(operation, request->name, bad, &answer);
	} else if (request->scope != LDAP_SCOPE_BASE && asks_base_only(request)) {
		answer_set(&answer, LDAP_OPERATIONS_ERROR, "00002120: SvcErr: DSID-0314021E, problem 5012 (DIR_ERROR), data 0\n");
	} else {
		answer.code = put_entries(operation, base, &page);
		if (answer.code)
			answer_set(&answer, answer.code, "%s", "");
		if (!answer.code && !page.cookie.size && base == forest->domain && request->scope == LDAP_SCOPE_SUBTREE && !controls_find(request, DOMAIN_SCOPE))
			put_references(operation);
	}
	operation->target = request->scope == LDAP_SCOPE_BASE ? base : NULL;
	operation->result = answer.code;
	message_put_result(operation->out, request->id, LDAP_RES_SEARCH_RESULT, &answer, page.asked && base ? &page.cookie : NULL);
}

bool search_concerns(struct operation *operation, struct object *object)
{
	bool bad;
	struct object *base = forest_resolve(operation->server->forest, &operation->server->arena, operation->request->name, &bad);
	struct view view = operation_view(operation);
	return base && in_scope(object, base, operation->request->scope) && filter_match(operation->request->filter, &view, object) == MATCH_TRUE;
}
