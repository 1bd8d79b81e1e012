use super::*;

/// What is missing, each with where and what to write.
fn missing(document: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    let tags: Vec<&str> = elements(&document["tags"])
        .filter(|tag| is_said(&tag["description"]))
        .filter_map(|tag| tag["name"].as_str())
        .collect();
    let mut document = document.clone();
    let components = document["components"].clone();
    for operation in operations(&mut document) {
        let name = format!("{} {}", operation.method, operation.path);
        let mut lacks = |what: &str| missing.push(format!("{name}: {what}"));
        let body = &*operation.body;
        for field in ["operationId", "summary", "description"] {
            if !is_said(&body[field]) {
                lacks(&format!(
                    "no {field}; its first doc line is the summary, the rest its description"
                ));
            }
        }
        if elements(&body["tags"]).next().is_none() {
            lacks("no tag; say #[OpenApi(tag = \"Tag::…\")]");
        }
        for tag in elements(&body["tags"]) {
            if !tag.as_str().is_some_and(|tag| tags.contains(&tag)) {
                lacks(&format!("the tag {tag} has no description"));
            }
        }
        for parameter in elements(&body["parameters"]) {
            let name = &parameter["name"];
            if !is_said(&parameter["description"]) {
                lacks(&format!(
                    "the parameter {name} has no description; write a doc comment"
                ));
            }
            if parameter.get("example").is_none() {
                lacks(&format!(
                    "the parameter {name} has no example; say #[oai(example = \"function\")]"
                ));
            }
        }
        lacks_of_content("request", &body["requestBody"], &mut lacks);
        for (status, response) in body["responses"].as_object().unwrap() {
            let name = referenced(response);
            let response = name.map_or(response, |name| &components["responses"][name]);
            if !is_said(&response["description"]) {
                lacks(&format!("{status} has no description"));
            }
            lacks_of_content(status, response, &mut lacks);
            let is_error = status.starts_with(['4', '5']);
            let kinds = response["content"].as_object().into_iter().flatten();
            let schemas: Vec<_> = kinds
                .map(|(kind, media)| (kind.as_str(), referenced(&media["schema"])))
                .collect();
            let is_problem = schemas == [("application/problem+json", Some("Problem"))];
            if is_error != is_problem {
                lacks(&format!(
                    "{status} answers {schemas:?}; an error answers a Problem, and nothing else does"
                ));
            }
            for (header, value) in response["headers"].as_object().into_iter().flatten() {
                let value = referenced(value).map_or(value, |name| &components["headers"][name]);
                if !is_said(&value["description"]) || value.get("example").is_none() {
                    lacks(&format!(
                        "{status}'s header {header} has no description or example; headers.rs may know it"
                    ));
                }
            }
        }
        let count = body["responses"].as_object().unwrap().len();
        assert!(count > 1, "{name}");
    }
    for (name, schema) in components["schemas"].as_object().unwrap() {
        if !is_said(&schema["description"]) {
            missing.push(format!("{name}: no description; write a doc comment"));
        }
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            if !is_said(&property["description"]) {
                missing.push(format!(
                    "{name}.{field}: no description; write a doc comment"
                ));
            }
        }
    }
    missing
}

fn lacks_of_content(what: &str, holder: &Value, lacks: &mut impl FnMut(&str)) {
    for (kind, media) in holder["content"].as_object().into_iter().flatten() {
        if media.get("example").is_none() {
            lacks(&format!(
                "{what} has no example as {kind}; give its type #[oai(example)] and an impl Example"
            ));
        }
    }
}

fn is_said(text: &Value) -> bool {
    text.as_str().is_some_and(|text| !text.trim().is_empty())
}

#[test]
fn nothing_is_left_unsaid() {
    let missing = missing(&document());
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn what_is_left_unsaid_is_found() {
    let whole = document();
    let operation = "/paths/~1items/post";
    let plants = [
        ("/summary", "no summary"),
        ("/operationId", "no operationId"),
        ("/description", "no description"),
        ("/tags", "no tag"),
        (
            "/requestBody/content/application~1json/example",
            "request has no example",
        ),
        (
            "/responses/201/content/application~1json/example",
            "201 has no example",
        ),
        (
            "/responses/201/headers/Location/description",
            "header Location",
        ),
    ];
    for (place, expected) in plants {
        let mut document = whole.clone();
        let (holder, field) = place.rsplit_once('/').unwrap();
        let pointer = format!("{operation}{holder}");
        let holder = document.pointer_mut(&pointer).unwrap();
        let field = field.replace("~1", "/");
        assert!(
            holder.as_object_mut().unwrap().remove(&field).is_some(),
            "{place}"
        );
        let found = missing(&document);
        assert_eq!(found.len(), 1, "{place}: {found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    }
    let mut document = whole.clone();
    let answers = "/paths/~1items/post/responses/400";
    *document.pointer_mut(answers).unwrap() = serde_json::json!({"description": "Plain text.", "content": {"text/plain": {"example": "no"}}});
    let found = missing(&document);
    assert!(
        found.len() == 1 && found[0].contains("an error answers a Problem"),
        "{found:?}"
    );
}
