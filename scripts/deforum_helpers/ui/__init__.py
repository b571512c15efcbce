"""What the tab's page is made of: layout.py says where each field stands, page.py makes the HTML that the page code in
javascript/ takes over."""
