/* filter: does an object match (RFC 4511 4.5.1.7, with Active Directory's two matching rules). */
#ifndef MOCK_DIRECTORY_FILTER_H
#define MOCK_DIRECTORY_FILTER_H

#include "attributes.h"
#include "message.h"

enum match { MATCH_FALSE, MATCH_TRUE, MATCH_UNDEFINED };
enum match filter_match(const struct filter *filter, const struct view *view, struct object *object);

#endif
